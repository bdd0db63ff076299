// last_call.cc - see last_call.h. Part of: hsmd.
#include "hsmd/last_call.h"

namespace sallyport::hsmd {

namespace {

Board* noted = nullptr;

}  // namespace

void noteCallsOn(Board* board) {
  if (noted != nullptr) noted->setCall({});
  noted = board;
  if (board != nullptr) board->setCall({});
}

void noteCall(std::string_view function) {
  if (noted != nullptr) noted->setCall(function);
}

std::string lastCall() { return noted != nullptr ? noted->call() : ""; }

}  // namespace sallyport::hsmd
