// wire_pipe.h - the encrypted side of a [[listen]] entry on standard input and output. Part of: cli.
// For carrying the wire inside something else: `ssh host sallyport pipe --wire NAME` at the other end of a pipe is a
// connection to that host's entry. The bytes are copied as they are; what they mean is netd's to judge.
#pragma once

#include <string>

#include "common/config.h"

namespace sallyport::cli {

// Returns the exit status: 0 when both directions have ended.
int pipeWire(const Config& config, const std::string& name);

}  // namespace sallyport::cli
