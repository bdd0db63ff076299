// config_changes.h - what a reload changes, in words for people. Part of: netd (monitor).
#pragma once

#include <string>

#include "common/config.h"

namespace sallyport::netd {

// "peer added: bob, listen changed: db, limits changed"; never empty.
std::string describeChanges(const Config& before, const Config& after);
// Some of it is in force after the next start only; describeChanges() says so too.
bool needsRestart(const Config& before, const Config& after);

}  // namespace sallyport::netd
