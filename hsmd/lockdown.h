// lockdown.h - the worker's sandbox, put up when nothing is left to load. Part of: hsmd (worker).
#pragma once

#include "hsmd/birth.h"
#include "hsmd/settings.h"
#include "sandbox/sandbox.h"

namespace sallyport::hsmd {

// Tells the keeper that the worker is up, and each layer. `restricted`: with Landlock and the module's filter. False:
// the sandbox that the configuration demands can't be had; the log says why.
bool lockDown(const Birth& birth, const WorkerSettings& settings, hsm::Status login, bool restricted,
              std::string_view why = {});

// What the module may still touch: its profile's paths, and those of the configuration.
std::vector<sandbox::PathRule> pathsOf(const WorkerSettings& settings);
// The folder in NSS's `configdir='sql:FOLDER'`; empty if there is none.
std::string nssFolder(const std::string& initArguments);

}  // namespace sallyport::hsmd
