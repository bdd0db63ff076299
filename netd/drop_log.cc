// drop_log.cc - see drop_log.h.
#include "netd/drop_log.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {

bool isRefusal(DropReason reason) {
  switch (reason) {
    case DropReason::PeerNotAllowed:
    case DropReason::PeerRevoked:
    case DropReason::VaultRefused:
    case DropReason::NonceUnavailable:
    case DropReason::HsmUnavailable:
    case DropReason::BlockUsed:
    case DropReason::RateLimited: return true;
    default: return false;
  }
}

}  // namespace

std::optional<std::string> DropLog::note(const Dropped& dropped, uint64_t nowMs) {
  const bool refusal = isRefusal(dropped.reason);
  const auto unlogged = (refusal ? refusals_ : others_).take(nowMs);
  if (!unlogged) return std::nullopt;
  std::string line = std::string(refusal ? "refused" : "drop") + " reason=" + std::string(name(dropped.reason)) +
                     " entry=" + dropped.entry.name;
  if (dropped.from != nullptr) line += " from=" + printable(*dropped.from);
  if (dropped.peer != nullptr) {
    const auto known = dropped.entry.allow.find(*dropped.peer);
    line += known == dropped.entry.allow.end() ? " key=" + toBase64(dropped.peer->span()) : " peer=" + known->second;
  }
  return line + *unlogged;
}

}  // namespace sallyport::netd
