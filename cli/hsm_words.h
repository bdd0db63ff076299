// hsm_words.h - what went wrong with a token, for the person at the terminal: by name, and with a next step. Part of:
// cli (pure). Text that comes from a module's process is sanitized here.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "hsmlink/hsm_link.h"
#include "vaultd/problem.h"

namespace sallyport::cli {

// `detail`: of WorkerUp and WorkerDied, or the name of a CKR_*; may be empty.
vaultd::Problem refusalOf(const std::string& token, hsm::Status status, std::string_view detail);
// No answer came at all, within `waitedMs`.
vaultd::Problem unansweredBy(const std::string& token, hsmlink::Failure failure, uint64_t waitedMs);
// The token makes no such key, or takes none: what its trials say about that. `how`: "generate" or "import".
vaultd::Problem cannotMake(const std::string& token, hsm::KeyKind kind, std::string_view how,
                           std::span<const hsm::ProbeReply> trials);
// One cell of the probe's table: "C_DeriveKey: CKR_MECHANISM_INVALID".
std::string whyOf(const hsm::ProbeReply& trial);
// Of a token that a running vault has, by its state in `status`.
std::string nextStep(const std::string& token, std::string_view state);

}  // namespace sallyport::cli
