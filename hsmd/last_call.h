// last_call.h - which function of the module was called last, on the board: what it hangs in or has died in, its keeper
// can say. Part of: hsmd (worker and probe write, keeper reads). Until a worker serves: its threads call what they
// like.
#pragma once

#include <string>
#include <string_view>

#include "hsmd/board.h"

namespace sallyport::hsmd {

// Where calls are noted from here on; null: nowhere.
void noteCallsOn(Board* board);
// Before the call. `function`: "C_Login".
void noteCall(std::string_view function);
// The last one that was noted in this process; empty: none.
std::string lastCall();

}  // namespace sallyport::hsmd
