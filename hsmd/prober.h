// prober.h - tries what a module can do, one thing after the other. Part of: hsmd (the probe, a throw-away process; the
// operator's worker reads its results). A wrong spelling can end the process: that is what it is for.
#pragma once

#include "hsmd/keys.h"

namespace sallyport::hsmd {

// Every way of using every key of the token that the board doesn't know yet. A failure is the token's, not a key's:
// what was being tried is as untried as before. `patient`: one that hangs says nothing of others of its kind; else they
// are left untried, since each would cost its time.
Outcome<void> probeKeys(const Module& module, const TokenFacts& token, Board& board, bool patient = true);
// What the module could do with new keys: made for the session, used once, and destroyed. For operators.
Outcome<void> probeCapabilities(const Module& module, const TokenFacts& token, Board& board);

// The lines of the board that are about the module, in the order in which they were tried.
std::vector<Board::Seen> capabilityTrials(const Board& board);
// The first spelling that has worked for `what` ("generate" or "import"); null if there is none.
const SpellingRow* provedRow(const Board& board, std::string_view what);

// The proof of a key that was just made, in its first way that works; notes it in the key.
Outcome<void> proveNew(const Session& session, TokenKey& key);

}  // namespace sallyport::hsmd
