#include "proto/wire/drop_reason.h"

namespace sallyport::wire {

std::string_view name(DropReason reason) {
  switch (reason) {
#define X(id, text, what) \
  case DropReason::id: return text;
    SALLYPORT_DROP_REASONS(X)
#undef X
  }
  return "unknown";
}

std::string_view describe(DropReason reason) {
  switch (reason) {
#define X(id, text, what) \
  case DropReason::id: return what;
    SALLYPORT_DROP_REASONS(X)
#undef X
  }
  return "unknown reason";
}

}  // namespace sallyport::wire
