// Expect: ignoring returned value of type|ignoring return value
#include "common/result.h"

sallyport::Result<int, int> compute();
void forget() { compute(); }
