"""What this course asks of nbgrader; `autograder release` and nbgrader itself both read it."""

from autograder.nbgrader_plugin import configure
from autograder.notebooks import default_config

c = get_config()  # noqa: F821  (nbgrader puts it there)

c.CourseDirectory.course_id = "transformer-workbook"

# Mark schemes in manual questions, and which files never travel with a notebook.
c.merge(default_config())

# The engine where nbgrader has its own: `nbgrader autograde` and formgrader's button use it.
configure(c)
