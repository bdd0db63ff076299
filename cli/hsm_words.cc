#include "cli/hsm_words.h"

#include <algorithm>
#include <array>

#include "common/log.h"

namespace sallyport::cli {
namespace {

using hsm::Status;
using hsm::Trial;
using vaultd::Problem;

std::string section(const std::string& token) { return "[token." + token + "]"; }
std::string probeCommand(const std::string& token) { return "`sallyport hsm probe " + token + "`"; }

std::string hintOf(const std::string& token, Status status, std::string_view detail) {
  switch (status) {
    case Status::NoModule:
      if (detail.starts_with("C_"))
        return "what the module reads at its start is told by `env` and `init_args` in " + section(token) +
               ", and hsmd's `user` must be able to read it";
      return "`module` in " + section(token) + " is the absolute path of the PKCS#11 module's library";
    case Status::NoToken:
    case Status::AmbiguousToken:
      return "`uri` in " + section(token) + " must fit exactly one token, whose files or device hsmd's `user` may use";
    case Status::PinWrong: return "mend the source that `pin` names, or give it with --pin-file FILE or --pin-fd N";
    case Status::PinLocked: return "the token's own tool unlocks it, with the PIN of its security officer";
    case Status::PinLowRefused: return "--pin-file FILE or --pin-fd N gives one for which an operator answers";
    case Status::PinFinalTryRefused: return "--force tries it all the same: a wrong one locks the token";
    case Status::PinUnset: return "the token's own tool sets it, as `softhsm2-util --init-token` does";
    case Status::NotLoggedIn:
      return std::string(detail.empty() ? "give the PIN" : "mend that, or give the PIN") +
             " with --pin-file FILE, --pin-fd N or at a terminal";
    case Status::DeviceRemoved: return "plug it in, or see whether its files are where the module looks for them";
    case Status::SessionLimit: return "end what else uses the token, or lower max_sessions in " + section(token);
    case Status::BadResult: return "a module that computes wrong: don't use it";
    case Status::BlobRejected: return "it has another key than the one that sealed this file";
    case Status::KeyExists: return "choose another name: nothing in the token is overwritten";
    case Status::ReadOnly: return "the token's own tool makes it writable";
    case Status::Starting: return "a module that crashes or exits: its own log may tell more";
    case Status::SaidTooMuch: return "a module that writes where it has no business: don't use it";
    case Status::KeeperDied: return "try it again; the lines above tell what ended it";
    case Status::ModuleHangs:
      return "does it wait for a device or a service? With a larger deadline_ms in " + section(token) +
             " it has more time";
    case Status::Unsupported:
      return probeCommand(token) + " shows what it can do; `sallyport hsm seal NAME --token " + token +
             "` needs no X25519";
    default: return probeCommand(token) + " tries each thing by itself; the module's own log may tell more";
  }
}

// What says that a token doesn't have something at all: one of many spellings is refused so by every module.
bool saysUnsupported(uint32_t ckr) {
  constexpr std::array<uint32_t, 11> CODES{0x12, 0x13, 0x54, 0x63, 0x68, 0x70, 0x71, 0xd0, 0xd1, 0x130, 0x140};
  return std::ranges::find(CODES, ckr) != CODES.end();
}

// The more of it, the more it tells why nothing works.
int weight(const hsm::ProbeReply& trial) {
  switch (trial.trial) {
    case Trial::Wrong: return 5;
    case Trial::TimedOut: return 4;
    case Trial::Crashed: return 3;
    case Trial::Refused: return saysUnsupported(trial.ckr) ? 1 : 2;
    case Trial::Untried:
    case Trial::Works: return 0;
  }
  return 0;
}

std::string missingMechanism(std::string_view what, std::string_view call) {
  const bool edwards = what.starts_with("ed25519") || what.find("edwards") != what.npos;
  if (call == "C_GenerateKeyPair")
    return what.find(": ec,") != what.npos ? "CKM_EC_KEY_PAIR_GEN"
           : edwards                       ? "CKM_EC_EDWARDS_KEY_PAIR_GEN"
                                           : "CKM_EC_MONTGOMERY_KEY_PAIR_GEN";
  if (call == "C_DeriveKey") return "CKM_ECDH1_DERIVE";
  return call == "C_SignInit" ? "CKM_EDDSA" : "";
}

}  // namespace

Problem refusalOf(const std::string& token, Status status, std::string_view detail) {
  std::string message = "token " + token + ": " + std::string(hsm::describe(status));
  if (!detail.empty()) message += ": " + sanitized(detail);
  return {std::move(message), hintOf(token, status, detail)};
}

Problem unansweredBy(const std::string& token, hsmlink::Failure failure, uint64_t waitedMs) {
  if (failure == hsmlink::Failure::Late)
    return {"token " + token + ": " + std::string(hsm::describe(Status::ModuleHangs)) + ": no answer within " +
                std::to_string(waitedMs / 1000) + " s",
            hintOf(token, Status::ModuleHangs, {})};
  return {"token " + token + ": " + std::string(hsmlink::describe(failure)), hintOf(token, Status::ModuleFailed, {})};
}

Problem cannotMake(const std::string& token, hsm::KeyKind kind, std::string_view how,
                   std::span<const hsm::ProbeReply> trials) {
  const std::string prefix = std::string(hsm::name(kind)) + " ";
  const hsm::ProbeReply* worst = nullptr;
  for (const hsm::ProbeReply& trial : trials) {
    const std::string what = trial.what.text();
    // Keys of Ed25519 are tried by generating alone, and what hangs there isn't tried by importing.
    const bool about =
        what.starts_with(prefix + std::string(how)) || kind == hsm::KeyKind::Ed25519 || trial.trial == Trial::TimedOut;
    if (!about || !what.starts_with(prefix)) continue;
    if (worst == nullptr || weight(trial) > weight(*worst)) worst = &trial;
  }
  if (worst == nullptr || weight(*worst) == 0) return refusalOf(token, Status::Unsupported, {});
  const std::string what = sanitized(worst->what.text());
  const std::string call = sanitized(worst->call.text());
  const std::string kindText = kind == hsm::KeyKind::X25519 ? "X25519" : "Ed25519";
  const std::string begin = "token " + token + ": ";
  const std::string in = call.empty() ? "" : " in " + call;
  const std::string seal = "`sallyport hsm seal NAME --token " + token + "` lets it open a key's file instead";
  switch (worst->trial) {
    case Trial::Wrong:
      return {begin + "the module gave a wrong result with a new key (" + what + ")",
              "don't use this module for derives; if its probe is right about sealing, " + seal};
    case Trial::TimedOut:
      return {begin + "the module doesn't come back" + in + " (" + what + ")", hintOf(token, Status::ModuleHangs, {})};
    case Trial::Crashed:
      return {begin + "the module crashes" + in + " (" + what + ")",
              "its own log may tell more; " + probeCommand(token) + " shows what it can do"};
    default: break;
  }
  const std::string verb = how == "import" ? "takes no " + kindText + " key" : "makes no " + kindText + " key";
  std::string message = begin + "it " + verb + ": " + (call.empty() ? "it" : call) + " answered " +
                        hsm::ckrName(worst->ckr) + " (" + what + ")";
  if (!saysUnsupported(worst->ckr)) return {message, "the module's own log may tell more; " + probeCommand(token)};
  const std::string mechanism = worst->ckr == 0x70 ? missingMechanism(what, call) : "";
  if (!mechanism.empty()) message += ", so it has no " + mechanism;
  return {message, kind == hsm::KeyKind::X25519 ? seal : probeCommand(token) + " shows what it can do"};
}

std::string whyOf(const hsm::ProbeReply& trial) {
  // Of a wrong result every call was well.
  const bool failed = trial.trial != Trial::Works && trial.trial != Trial::Wrong;
  std::string text = failed ? trial.call.text() : "";
  if (trial.ckr != 0) text += (text.empty() ? "" : ": ") + hsm::ckrName(trial.ckr);
  return text.empty() ? "-" : text;
}

std::string nextStep(const std::string& token, std::string_view state) {
  if (state == "no pin") return "`sallyport hsm unlock " + token + "`; what `pin` names is read when vaultd starts";
  if (state == "ended") return "restart vaultd: it can't start another hsmd";
  if (state == "starting" || state == "proving") return "wait a moment, then `sallyport hsm status`";
  return "it is tried again by itself; docs/hsm.md, \"When something is wrong\"; " + probeCommand(token);
}

}  // namespace sallyport::cli
