// token_hints.cc - what an operator can do about a token that isn't up: see token.h. Process: vaultd alone.
#include "vaultd/token.h"

namespace sallyport::vaultd {

using hsm::Status;

namespace {

std::string hintForNoPin(Status cause, const std::string& token) {
  const std::string unlock = "`sallyport hsm unlock " + token + "`";
  switch (cause) {
    case Status::PinLocked:
      return "the token's own tool sets a new PIN, by that of its security officer; then " + unlock;
    case Status::PinUnset: return "the token's own tool sets its first PIN; then " + unlock;
    case Status::PinWrong:
      return "see to the source in `pin` of [token." + token + "], and give the right one: " + unlock;
    case Status::PinLowRefused: return unlock + ": one more wrong PIN may leave a single try";
    case Status::PinFinalTryRefused: return unlock + " --force: a wrong PIN locks the token";
    default: return unlock;
  }
}

std::string hintForDown(Status cause, const std::string& token) {
  const std::string table = "[token." + token + "]";
  switch (cause) {
    case Status::NoModule: return "see `module` of " + table + ", and the log for the loader's words";
    case Status::NoToken: return "plug it in, or see `uri`, `user` and `env` of " + table + "; it is found by itself";
    case Status::AmbiguousToken: return "let `uri` of " + table + " name one of them, by its serial number";
    case Status::DeviceRemoved: return "plug it in; it is found by itself";
    case Status::SessionLimit: return "close other programs' sessions with it, or lower `workers` of " + table;
    case Status::SaidTooMuch: return "don't use this module before you know what it does: docs/hsm.md";
    default:
      return "it is tried again by itself; `sallyport hsm probe " + token + "` and the module's own log tell more";
  }
}

}  // namespace

std::string hintFor(TokenState state, Status cause, std::string_view token) {
  const std::string name(token);
  switch (state) {
    case TokenState::Up: return {};
    case TokenState::Starting:
    case TokenState::Proving:
      return "wait a little; a module that doesn't come back is ended and tried again by itself";
    case TokenState::NoPin: return hintForNoPin(cause, name);
    case TokenState::Resting: return "its keys are tried again by itself; the module's own log may tell more";
    case TokenState::Down: return hintForDown(cause, name);
    case TokenState::Ended: return "restart vaultd";
  }
  return {};
}

std::string Token::hint() const {
  if (state_ == TokenState::Starting && pinFd_ && facts_.epoch == 0 && facts_.restarts == 0)
    return "its PIN is read from descriptor " + std::to_string(*pinFd_) + " until whoever gives it closes it";
  return hintFor(state_, cause_, name_);
}

}  // namespace sallyport::vaultd
