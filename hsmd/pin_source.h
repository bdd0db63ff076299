// pin_source.h - fetches the PIN from where the configuration says. Part of: hsmd (before lock-down, perhaps as root).
#pragma once

#include <sys/types.h>

#include <string>

#include "common/config.h"
#include "hsmd/pin_page.h"

namespace sallyport::hsmd {

// Into the record, as Untried; for Ask nothing. A source that can't be used leaves the record without a PIN, and the
// token locked: the answer is why, and empty if all is well. The PIN is never part of it.
std::string fetchPin(const PinSource& source, uid_t user, PinRecord& record);

}  // namespace sallyport::hsmd
