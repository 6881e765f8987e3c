"""What this course asks of nbgrader; `autograder release` and nbgrader itself both read it."""

from autograder.nbgrader_plugin import configure
from autograder.notebooks import default_config

c = get_config()  # noqa: F821  (nbgrader puts it there)

c.CourseDirectory.course_id = "transformer-workbook"

# Mark schemes in manual questions, and which files never travel with a notebook.
c.merge(default_config())

# The engine where nbgrader has its own: `nbgrader autograde` and formgrader's button use it.
configure(c)

# What a submission may take; `autograder grade` and nbgrader's commands both keep to it. These are
# the defaults: seconds of a case, a cell and a whole notebook, and bytes of memory.
c.Limits.case = 5
c.Limits.cell = 20
c.Limits.submission = 60
c.Limits.memory = 2 << 30
