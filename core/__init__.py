"""The platform, without HTTP."""

import os

# NumPy's products are of small matrices, made by many threads at once: threads of its own would only be in their
# way. It reads this when it is first imported, which is after this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
