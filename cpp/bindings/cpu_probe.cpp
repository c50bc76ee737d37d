// Which instructions this CPU and operating system let a process use. Runs before any engine module is loaded,
// therefore compiled for the baseline and free of Eigen and pybind11.
//
// Bits: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E. State components of XCR0: SDM volume 1, 13.1.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#define JEPA_ODE_X86_64 1
#include <cpuid.h>
#endif

namespace {

#ifdef JEPA_ODE_X86_64

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero where the CPU does not know the leaf.
Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

// Register states that the operating system saves on a context switch; readable only where it turned XSAVE on.
std::uint64_t enabled_states(bool osxsave) {
  if (!osxsave) return 0;
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

#endif

bool set(PyObject* dict, const char* name, bool value) {
  return PyDict_SetItemString(dict, name, value ? Py_True : Py_False) == 0;
}

bool fill(PyObject* dict) {
#ifdef JEPA_ODE_X86_64
  const Registers basic = cpuid(1), extended = cpuid(7), amd = cpuid(0x80000001u);
  const auto bit = [](std::uint32_t value, int k) { return ((value >> k) & 1u) != 0; };
  const bool osxsave = bit(basic.ecx, 27);
  const std::uint64_t states = enabled_states(osxsave);
  constexpr std::uint64_t ymm = 0x06;  // SSE (bit 1), AVX (bit 2)
  constexpr std::uint64_t zmm = 0xe6;  // and opmask (5), upper halves of ZMM0-15 (6), ZMM16-31 (7)
  return set(dict, "sse3", bit(basic.ecx, 0)) && set(dict, "ssse3", bit(basic.ecx, 9)) &&
         set(dict, "fma", bit(basic.ecx, 12)) && set(dict, "cmpxchg16b", bit(basic.ecx, 13)) &&
         set(dict, "sse4.1", bit(basic.ecx, 19)) && set(dict, "sse4.2", bit(basic.ecx, 20)) &&
         set(dict, "movbe", bit(basic.ecx, 22)) && set(dict, "popcnt", bit(basic.ecx, 23)) &&
         set(dict, "osxsave", osxsave) && set(dict, "avx", bit(basic.ecx, 28)) &&
         set(dict, "f16c", bit(basic.ecx, 29)) && set(dict, "bmi1", bit(extended.ebx, 3)) &&
         set(dict, "avx2", bit(extended.ebx, 5)) && set(dict, "bmi2", bit(extended.ebx, 8)) &&
         set(dict, "avx512f", bit(extended.ebx, 16)) && set(dict, "avx512dq", bit(extended.ebx, 17)) &&
         set(dict, "avx512cd", bit(extended.ebx, 28)) && set(dict, "avx512bw", bit(extended.ebx, 30)) &&
         set(dict, "avx512vl", bit(extended.ebx, 31)) && set(dict, "lahf", bit(amd.ecx, 0)) &&
         set(dict, "lzcnt", bit(amd.ecx, 5)) && set(dict, "os_ymm", (states & ymm) == ymm) &&
         set(dict, "os_zmm", (states & zmm) == zmm);
#else
  static_cast<void>(dict);
  return true;
#endif
}

PyObject* features(PyObject*, PyObject*) {
  PyObject* const dict = PyDict_New();
  if (dict != nullptr && !fill(dict)) {
    Py_DECREF(dict);
    return nullptr;
  }
  return dict;
}

PyMethodDef methods[] = {
    {"features", features, METH_NOARGS, "Return {feature: whether this CPU and operating system have it}."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cpu_probe", "What the CPU can do.", 0, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu_probe() {
  // The engine's bindings are for one interpreter: in a second one their import never returns (Python 3.11).
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "jepa_ode runs in the main interpreter only, not in a subinterpreter");
    return nullptr;
  }
  return PyModule_Create(&definition);
}
