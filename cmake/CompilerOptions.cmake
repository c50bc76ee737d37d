# jepa_ode::options: what every translation unit is compiled with, whatever its instruction set.
#
# Never here: -march=native (a wheel must run on other machines), -ffast-math (it changes the floating-point environment of
# the whole process). Contraction is off so that a*b+c rounds the same way in every instruction set; code that wants a
# fused multiply-add says std::fma.
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

# A source distribution (it holds a PKG-INFO) meets compilers that did not exist when it was made: there a new warning must
# not stop an installation.
set(werror_default ON)
if(EXISTS ${PROJECT_SOURCE_DIR}/PKG-INFO)
  set(werror_default OFF)
endif()
option(JEPA_ODE_WARNINGS_AS_ERRORS "Stop at the first compiler warning" ${werror_default})

add_library(jepa_ode_options INTERFACE)
add_library(jepa_ode::options ALIAS jepa_ode_options)
if(CMAKE_CXX_COMPILER_ID STREQUAL "MSVC")
  message(FATAL_ERROR "The engine's packs are vectors of GCC and Clang, which cl does not know: use clang-cl (cmake -T ClangCL)")
elseif(MSVC)  # clang-cl, where -Wall would mean every warning there is
  target_compile_options(jepa_ode_options INTERFACE
    /clang:-ffp-contract=off /W4 -Wconversion -Wshadow /bigobj /utf-8 $<$<BOOL:${JEPA_ODE_WARNINGS_AS_ERRORS}>:/WX>)
else()
  target_compile_options(jepa_ode_options INTERFACE
    -ffp-contract=off -Wall -Wextra -Wconversion -Wshadow $<$<BOOL:${JEPA_ODE_WARNINGS_AS_ERRORS}>:-Werror>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC's own AVX-512 intrinsics start from a register that they leave undefined on purpose (its bug 105593).
    target_compile_options(jepa_ode_options INTERFACE -Wno-uninitialized)
  endif()
endif()

# Address, undefined-behaviour or thread sanitizer, e.g. "address,undefined" (CMakePresets.json).
set(JEPA_ODE_SANITIZE "" CACHE STRING "Value of -fsanitize=, empty for none")
if(JEPA_ODE_SANITIZE)
  set(sanitize -fsanitize=${JEPA_ODE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(jepa_ode_options INTERFACE ${sanitize})
  target_link_options(jepa_ode_options INTERFACE ${sanitize})
endif()

# jepa_ode_export_only(TARGET SYMBOL): hide everything else, the std:: templates that libstdc++ marks as visible included;
# otherwise the dynamic linker could bind one instruction set's copy of an inline function into another's module.
function(jepa_ode_export_only target symbol)
  if(WIN32)
    return()  # a DLL exports nothing but what __declspec(dllexport) names
  elseif(APPLE)
    target_link_options(${target} PRIVATE "LINKER:-exported_symbol,_${symbol}")
  else()
    set(script ${CMAKE_CURRENT_BINARY_DIR}/${target}.map)
    file(CONFIGURE OUTPUT ${script} CONTENT "{ global: ${symbol}; local: *; };\n")
    target_link_options(${target} PRIVATE "LINKER:--version-script=${script}")
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${script})
  endif()
endfunction()
