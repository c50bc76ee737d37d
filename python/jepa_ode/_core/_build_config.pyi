VERSION: str
COMPILER: str
EIGEN: str
BUILD_TYPE: str
FLAGS: dict[str, str]
