# The instruction sets that the engine is compiled for, each into objects and a module of its own (never two of them in one
# linked object: the linker would keep one copy of an inline function for both).
#
# python/jepa_ode/_core/__init__.py lists what each needs of the CPU and of the operating system; tests/test_build.py
# compares that list with what the flags below let the compiler use.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8 AND NOT CMAKE_OSX_ARCHITECTURES)
  set(all_isas baseline avx2 avx512)
else()
  set(all_isas baseline)
endif()
set(JEPA_ODE_ISAS "${all_isas}" CACHE STRING "Instruction sets to compile for, of: ${all_isas}")
foreach(isa IN LISTS JEPA_ODE_ISAS)
  if(NOT isa IN_LIST all_isas)
    message(FATAL_ERROR "JEPA_ODE_ISAS: '${isa}' is not one of ${all_isas}")
  endif()
endforeach()

# jepa_ode_isa_flags(ISA VARIABLE): the compiler flags of an instruction set. The named levels of the x86-64 ABI are used
# because every compiler means the same features by them.
function(jepa_ode_isa_flags isa variable)
  set(flags "")
  if("avx2" IN_LIST all_isas)
    set(flags_baseline -march=x86-64)
    set(flags_avx2 -march=x86-64-v3)
    set(flags_avx512 -march=x86-64-v4)
    set(flags ${flags_${isa}})
  endif()
  set(${variable} ${flags} PARENT_SCOPE)
endfunction()
