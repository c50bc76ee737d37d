# jepa_ode::eigen: the headers of Eigen (3.4 or 5), from the first of
#   1. -DJEPA_ODE_EIGEN_DIR=... (the folder that holds Eigen/Core);
#   2. cmake/eigen, which a source distribution carries (cmake/build_backend.py);
#   3. the pinned build requirement (dependency group "eigen" of pyproject.toml), a Python package that holds them;
#   4. an installed Eigen that CMake finds.
set(JEPA_ODE_EIGEN_DIR "" CACHE PATH "Folder that holds Eigen/Core; empty: find it")
set(eigen_dir "${JEPA_ODE_EIGEN_DIR}")

if(NOT eigen_dir AND EXISTS ${CMAKE_CURRENT_LIST_DIR}/eigen/Eigen/Core)
  set(eigen_dir ${CMAKE_CURRENT_LIST_DIR}/eigen)
endif()

if(NOT eigen_dir)
  find_package(Python 3.11 COMPONENTS Interpreter QUIET)
  if(Python_Interpreter_FOUND)
    # The backend tells, so that "where in the package" stands in one place.
    execute_process(COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/find_eigen.py
      OUTPUT_VARIABLE eigen_dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()

if(NOT eigen_dir)
  find_package(Eigen3 CONFIG QUIET)
  if(Eigen3_FOUND)
    get_target_property(eigen_dir Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
  endif()
endif()

if(NOT EXISTS "${eigen_dir}/Eigen/Core")
  message(FATAL_ERROR "Eigen not found: pip install the dependency group 'eigen' of pyproject.toml into the Python that CMake "
    "uses, or pass -DJEPA_ODE_EIGEN_DIR=<folder that holds Eigen/Core>")
endif()

# Eigen 3.4 keeps its version in Macros.h, Eigen 5 in Eigen/Version.
set(version_header ${eigen_dir}/Eigen/Version)
if(NOT EXISTS ${version_header})
  set(version_header ${eigen_dir}/Eigen/src/Core/util/Macros.h)
endif()
file(STRINGS ${version_header} version_lines REGEX "#define EIGEN_(WORLD|MAJOR|MINOR|PATCH)_VERSION +[0-9]+")
foreach(part WORLD MAJOR MINOR PATCH)
  string(REGEX MATCH "EIGEN_${part}_VERSION +([0-9]+)" match "${version_lines}")
  set(eigen_${part} "${CMAKE_MATCH_1}")
endforeach()
if(eigen_PATCH STREQUAL "")
  set(JEPA_ODE_EIGEN_VERSION ${eigen_WORLD}.${eigen_MAJOR}.${eigen_MINOR})
else()
  set(JEPA_ODE_EIGEN_VERSION ${eigen_MAJOR}.${eigen_MINOR}.${eigen_PATCH})
endif()
if(JEPA_ODE_EIGEN_VERSION VERSION_LESS 3.4)
  message(FATAL_ERROR "Eigen 3.4 or later is needed, ${eigen_dir} holds ${JEPA_ODE_EIGEN_VERSION}")
endif()
message(STATUS "Eigen ${JEPA_ODE_EIGEN_VERSION}: ${eigen_dir}")

add_library(jepa_ode_eigen INTERFACE)
add_library(jepa_ode::eigen ALIAS jepa_ode_eigen)
target_include_directories(jepa_ode_eigen SYSTEM INTERFACE ${eigen_dir})
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC raises these from its optimiser, where code inlined from a system header no longer counts as such; Eigen's unrolled
  # inner products set them off although every path that reads a packet has written it.
  target_compile_options(jepa_ode_eigen INTERFACE -Wno-maybe-uninitialized)
endif()
