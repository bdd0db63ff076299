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

std::optional<DropReason> dropReasonNamed(std::string_view text) {
#define X(id, known, what) \
  if (text == known) return DropReason::id;
  SALLYPORT_DROP_REASONS(X)
#undef X
  return std::nullopt;
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
