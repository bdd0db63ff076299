// not_a_module.cc - a shared library that loads well and is no PKCS#11 module: C_GetFunctionList isn't there.
extern "C" int notAModule() { return 0; }
