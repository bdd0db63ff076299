#include "vaultd/admin_service.h"

#include <algorithm>

#include "common/log.h"
#include "vaultd/batch.h"
#include "vaultd/tokens.h"

namespace sallyport::vaultd {

namespace {

constexpr auto text = toText;

}  // namespace

kj::Promise<void> AdminService::status(StatusContext context) {
  return guarded([&] {
    auto status = context.getResults(capnp::MessageSize{2048, 0}).initStatus();
    status.setVersion(SALLYPORT_VERSION);
    status.setPid(facts_.pid);
    status.setUptimeSeconds((state_.nowMs() - facts_.startedMs) / 1000);
    auto layers = status.initSandbox(static_cast<unsigned>(facts_.sandbox.layers.size()));
    for (unsigned i = 0; i < layers.size(); ++i) {
      const sandbox::Layer& layer = facts_.sandbox.layers[i];
      layers[i].setName(text(layer.name));
      layers[i].setState(literal(sandbox::name(layer.state)));
      layers[i].setDetail(text(layer.detail));
    }
    status.setSandboxVerdict(literal(sandbox::name(facts_.sandbox.verdict())));
    status.setMemory(text(facts_.memory));
    fillKeys(status);
    fillTokens(status);
    fillCounters(status);
    fillUses(status);
    fillAudit(status.initAudit());
  });
}

void AdminService::recordAction(std::string verb, std::string key, std::string outcome, std::string note) {
  AuditRecord record;
  record.caller = caller_;
  record.verb = std::move(verb);
  record.key = std::move(key);
  record.outcome = std::move(outcome);
  record.note = std::move(note);
  state_.recordEvent(std::move(record));
}

void AdminService::fillAudit(proto::AuditStatus::Builder status) {
  if (facts_.audit == nullptr) return status.setState("off");
  const AuditLog& log = facts_.audit->log();
  status.setState(log.problem().empty() ? kj::StringPtr("recording") : text(log.problem()));
  status.setSeq(log.head().seq);
  copyInto(status.initChain(AuditChain::SIZE), log.head().chain.span());
  status.setLost(log.lost());
  status.setExported(log.exported());
  status.setOldest(log.oldest());
  status.setRequired(facts_.auditRequired);
}

kj::Promise<void> AdminService::auditExported(AuditExportedContext context) {
  return guarded([&] {
    const uint64_t seq = context.getParams().getSeq();
    auto outcome = context.getResults().initOutcome();
    if (facts_.audit == nullptr || !facts_.audit->markExported(seq)) {
      auto refused = outcome.initRefused();
      refused.setReason(Refusal::NOT_PERMITTED);
      refused.setProblem(facts_.audit == nullptr ? "there is no audit log" : "the log has no such record");
      return;
    }
    recordAction("export", {}, "ok", "up to record " + std::to_string(seq));
    outcome.setDone(text("exported up to record " + std::to_string(seq)));
  });
}

void AdminService::fillKeys(proto::VaultStatus::Builder status) {
  auto keys = status.initKeys(static_cast<unsigned>(state_.keys.all().size()));
  unsigned i = 0;
  for (const auto& [name, key] : state_.keys.all()) {
    auto out = keys[i++];
    out.setName(text(name));
    out.setKind(literal(describe(key->header.kind)));
    const KeyVersion* active = key->activeFacts(state_.nowUnix());
    if (active != nullptr) {
      copyInto(out.initPublicKey(PublicKey::SIZE), active->publicKey.span());
      out.setVersion(active->number);
    }
    out.setState(key->locked ? "locked" : !key->usable ? "unusable" : active != nullptr ? "active" : "inactive");
    out.setToken(text(key->header.token));
    if (key->inToken() && active != nullptr) {
      const std::string problem = state_.tokens != nullptr
                                      ? state_.tokens->problemOf(*key, *active)
                                      : "token " + key->header.token + " isn't in the configuration";
      out.setProblem(text(problem));
      if (!problem.empty() && !key->locked && key->usable) out.setState("unavailable");
    }
    if (key->awaitsToken && key->locked && state_.tokens != nullptr)
      out.setProblem(text(state_.tokens->whyNotOpened(key->header)));
    out.setSealed(text(describeSlots(key->header)));
    out.setNonce(text(key->ledger->describe()));
    out.setHandshakesPerSecond(key->busiestRate(state_.nowMs()));
    out.setRateLimited(key->rateLimited);
    if (key->header.party) fillBlock(*key, out);
  }
}

void AdminService::fillBlock(const VaultKey& key, proto::KeyStatus::Builder out) {
  out.setParty(literal(describe(*key.header.party)));
  const KeyVersion* version = key.activeFacts(state_.nowUnix());
  if (version == nullptr || state_.base == nullptr) return;
  const BlockClaims& claims = state_.base->claims();
  if (claims.describe() != "ready") return out.setBaseMode(text(claims.describe()));
  out.setBaseMode(version->unused && !claims.isClaimed(version->publicKey) ? "unused" : "used");
}

void AdminService::fillTokens(proto::VaultStatus::Builder status) {
  if (state_.tokens == nullptr) return;
  auto tokens = status.initTokens(static_cast<unsigned>(state_.tokens->all().size()));
  unsigned i = 0;
  for (const auto& [name, token] : state_.tokens->all()) {
    const Token::Facts facts = token->facts();
    auto out = tokens[i++];
    out.setName(text(name));
    out.setState(literal(describe(token->state())));
    out.setWhy(text(token->why()));
    out.setHint(text(token->hint()));
    out.setToken(text(facts.token));
    out.setModule(text(facts.module));
    out.setPid(facts.pid);
    out.setEpoch(facts.epoch);
    out.setRestarts(facts.restarts);
    out.setRssKiB(facts.rssKiB);
    out.setDenials(facts.denials);
    out.setLastDenied(text(facts.lastDenied));
    out.setPresence(token->presenceAlways() ? "always" : "start");
    out.setPage(text(facts.page));
    const auto states = state_.tokens->keysOf(*token);
    auto keys = out.initKeys(static_cast<unsigned>(states.size()));
    for (unsigned j = 0; j < keys.size(); ++j) {
      keys[j].setName(text(states[j].name));
      copyInto(keys[j].initPublicKey(PublicKey::SIZE), states[j].publicKey.span());
      keys[j].setSealed(states[j].sealed);
      keys[j].setProblem(text(states[j].problem));
      keys[j].setHint(text(states[j].hint));
    }
    const std::pair<const char*, uint64_t> counts[] = {{"derived", facts.derived},       {"signed", facts.signedTexts},
                                                       {"refused", facts.refused},       {"late", facts.late},
                                                       {"stale", facts.stale},           {"garbage", facts.garbage},
                                                       {"bad_results", facts.badResults}};
    auto counters = out.initCounters(std::size(counts));
    for (unsigned j = 0; j < counters.size(); ++j) {
      counters[j].setName(counts[j].first);
      counters[j].setValue(counts[j].second);
    }
    auto layers = out.initSandbox(static_cast<unsigned>(facts.layers.size()));
    for (unsigned j = 0; j < layers.size(); ++j) layers.set(j, text(facts.layers[j]));
  }
}

void AdminService::fillCounters(proto::VaultStatus::Builder status) {
  uint64_t refills = 0;
  for (const auto& [name, key] : state_.keys.all()) refills += key->ledger->refills();
  auto counters = status.initCounters(Counters::TOTAL + 9);
  unsigned i = 0;
  const auto add = [&](std::string_view name, uint64_t value) {
    counters[i].setName(literal(name));
    counters[i++].setValue(value);
  };
  state_.counters.forEach(add);
  add("nonce_reservations", refills);
  add("shared_keys_cached", state_.cache.size());
  add("audit_records", facts_.audit == nullptr ? 0 : facts_.audit->log().head().seq);
  add("audit_lost", facts_.audit == nullptr ? 0 : facts_.audit->log().lost());
  add("peer_salts_pending", state_.salts.pending());
  add("peer_sessions_live", state_.base == nullptr ? 0 : state_.base->live());
  add("breakers_open", state_.breakers.openNow(state_.nowMs()));

  uint64_t accepted = 0;
  uint64_t refused = 0;
  std::array<uint64_t, CUT_OFF_COUNT> cutOff{};
  for (const RpcServer* server : facts_.servers) {
    for (size_t reason = 0; reason < CUT_OFF_COUNT; ++reason) cutOff[reason] += server->stats().cutOff[reason];
    accepted += server->stats().accepted;
    refused += server->stats().refused;
  }
  auto limits = status.initLimits(1);
  limits[0].setName("handshakes_per_second");
  limits[0].setValue(state_.keys.rate());
  add("clients_accepted", accepted);
  add("clients_refused", refused);
  auto out = status.initClientsCutOff(CUT_OFF_COUNT - 1);  // without CutOff::None
  for (unsigned reason = 1; reason < CUT_OFF_COUNT; ++reason) {
    out[reason - 1].setName(literal(name(static_cast<CutOff>(reason))));
    out[reason - 1].setValue(cutOff[reason]);
  }
}

namespace {

void refuseWith(proto::AdminOutcome::Builder outcome, Refusal reason, const std::string& problem) {
  auto refused = outcome.initRefused();
  refused.setReason(reason);
  refused.setProblem(text(problem));
}

}  // namespace

kj::Promise<void> AdminService::lock(LockContext context) {
  return guarded([&] {
    const std::string name(view(context.getParams().getKey()));
    auto outcome = context.getResults().initOutcome();
    if (name.empty()) {
      for (const auto& [each, key] : state_.keys.all()) state_.lock(*key);
    } else if (VaultKey* key = state_.keys.find(name)) {
      state_.lock(*key);
    } else {
      return refuseWith(outcome, Refusal::UNKNOWN_KEY, "no key of this name is loaded");
    }
    wipeDeadStack();
    state_.counters.add(Count::KeysLocked);
    recordAction("lock", name, "ok", name.empty() ? "all keys" : "");
    logInfo(name.empty() ? "all keys locked" : "locked key=" + name);
    outcome.setDone(text(name.empty() ? "all keys are locked" : "key " + name + " is locked"));
  });
}

Result<std::string, Problem> AdminService::unlockKey(std::string_view keyFile, ByteSpan fileKey, Refusal& reason) {
  reason = Refusal::BAD_SIZE;
  if (fileKey.size() != FileKey::SIZE) return refuse(Problem{"a file key has 32 bytes", {}});
  reason = Refusal::BAD_BOX;
  auto sealed = parseKeyText(keyFile);
  if (!sealed) return refuse(sealed.error());
  const std::string name = sealed->header.name;
  VaultKey* key = state_.keys.find(name);
  if (key == nullptr) {
    reason = Refusal::UNKNOWN_KEY;
    return refuse(Problem{"vaultd was not started with a key `" + name + "`", "restart it"});
  }
  auto opened = openKey(*sealed, FileKey(fileKey));
  if (!opened) return refuse(opened.error());
  reason = Refusal::NOT_PERMITTED;
  if (state_.base != nullptr) state_.base->endOf(*key);
  if (auto done = state_.keys.unlock(*key, std::move(*opened), state_.nowUnix()); !done) return refuse(done.error());
  // Opened by who unlocks it, not by a token; but a token may open this file after a loss.
  key->openedBy.clear();
  key->sealed = hasTokenSlot(sealed->header) ? std::make_unique<SealedKey>(std::move(*sealed)) : nullptr;
  if (state_.tokens != nullptr) state_.tokens->want(*key);
  return "key " + name + " is unlocked, " + std::to_string(key->versions.size()) +
         (key->versions.size() == 1 ? " version" : " versions");
}

kj::Promise<void> AdminService::unlock(UnlockContext context) {
  return guarded([&] {
    const auto params = context.getParams();
    auto outcome = context.getResults().initOutcome();
    Refusal reason;
    const auto done = unlockKey(view(params.getKeyFile()), view(params.getFileKey()), reason);
    wipeDeadStackOfLoading();
    state_.counters.add(done ? Count::KeysUnlocked : Count::UnlocksRefused);
    if (!done) {
      logWarning("unlock refused: " + done.error().message);
      recordAction("unlock", {}, std::string(Counters::nameOf(static_cast<size_t>(reason))), done.error().message);
      return refuseWith(outcome, reason, done.error().message);
    }
    logInfo(*done);
    recordAction("unlock", {}, "ok", *done);
    outcome.setDone(text(*done));
  });
}

kj::Promise<void> AdminService::unlockToken(UnlockTokenContext context) {
  const auto params = context.getParams();
  const std::string name(view(params.getToken()));
  Token* token = state_.tokens == nullptr ? nullptr : state_.tokens->find(name);
  if (token == nullptr) {
    return guarded([&] {
      refuseWith(context.getResults().initOutcome(), Refusal::UNKNOWN_ENTRY,
                 "vaultd was not started with a token of this name");
    });
  }
  auto pair = kj::newPromiseAndFulfiller<hsm::Status>();
  token->login(view(params.getPin()), params.getForce(),
               [fulfiller = std::make_shared<decltype(pair.fulfiller)>(kj::mv(pair.fulfiller))](hsm::Status status) {
                 (*fulfiller)->fulfill(kj::mv(status));
               });
  return pair.promise.then([this, name, token, context](hsm::Status status) mutable {
    return guarded([&] {
      const bool good = status == hsm::Status::Ok;
      recordAction("unlock_token", {}, std::string(hsm::name(status)), "token " + name);
      auto outcome = context.getResults().initOutcome();
      if (good) return outcome.setDone(text("token " + name + " has its PIN"));
      const std::string why = token->state() == TokenState::Ended ? token->why() : std::string(hsm::describe(status));
      refuseWith(outcome, Refusal::HSM_UNAVAILABLE, "token " + name + ": " + why);
    });
  });
}

kj::Promise<void> AdminService::panic(PanicContext context) {
  return guarded([&] {
    if (state_.base != nullptr) state_.base->endAll();
    state_.keys.panic();
    if (state_.tokens != nullptr) state_.tokens->panic();
    wipeDeadStack();
    state_.counters.add(Count::Panics);
    recordAction("panic", {}, "ok", "all secrets wiped");
    logWarning("PANIC: all secrets are wiped; only unlock or a restart brings a key back");
  });
}

void AdminService::fillUses(proto::VaultStatus::Builder status) {
  auto out = status.initUses(VERB_COUNT);
  for (unsigned i = 0; i < VERB_COUNT; ++i) {
    const VerbStats& stats = state_.uses[ALL_VERBS[i]];
    out[i].setVerb(literal(name(ALL_VERBS[i])));
    out[i].setDone(stats.done);
    const auto kinds = std::ranges::count_if(stats.refused, [](uint64_t count) { return count != 0; });
    auto refused = out[i].initRefused(static_cast<unsigned>(kinds));
    unsigned at = 0;
    for (size_t reason = 0; reason < Counters::REFUSALS; ++reason) {
      if (stats.refused[reason] == 0) continue;
      refused[at].setName(text(std::string(Counters::nameOf(reason))));
      refused[at++].setValue(stats.refused[reason]);
    }
    const auto fill = [](auto list, const Log2Histogram& histogram) {
      for (unsigned bucket = 0; bucket < list.size(); ++bucket) list.set(bucket, histogram.counts()[bucket]);
    };
    fill(out[i].initQueued(Log2Histogram::BUCKETS), stats.queued);
    fill(out[i].initExecuted(Log2Histogram::BUCKETS), stats.executed);
  }
}

void AdminService::refuseReload(proto::ReloadOutcome::Builder outcome, const ConfigError& error) {
  state_.counters.add(Count::ReloadsRefused);
  state_.counters.addRefusal(Refusal::BAD_CONFIG);
  auto refused = outcome.initRefused();
  refused.setReason(Refusal::BAD_CONFIG);
  refused.setProblem(text(format(error, facts_.configFile)));
  recordAction("reload", {}, "bad_config", error.message);
}

kj::Promise<void> AdminService::reload(ReloadContext context) {
  return guarded([&] {
    const auto given = context.getParams().getConfig();
    auto outcome = context.getResults().initOutcome();
    auto config = parseConfig({given.begin(), given.size()}, facts_.configFile);
    if (!config) return refuseReload(outcome, config.error());
    auto grants = Grants::resolve(*config, facts_.accounts);
    if (!grants) return refuseReload(outcome, grants.error());
    state_.apply(*config, std::move(*grants));
    // A revoked peer's shared key has no use left.
    state_.cache.retain([&](SharedKeyCache::KeyId own, const PublicKey& peer) {
      for (const auto& [name, key] : state_.keys.all()) {
        if (std::ranges::find(key->versions, own, &VaultVersion::id) == key->versions.end()) continue;
        const bool known = !state_.policy.peerName(peer).empty();
        return state_.policy.knows(*key, peer) || (known && state_.authority.meets(name, peer));
      }
      return false;
    });
    state_.counters.add(Count::Reloads);

    std::string done = std::to_string(config->listens.size()) + " listen and " +
                       std::to_string(config->connects.size()) + " connect entries, " +
                       std::to_string(config->peers.size()) + " peers, " + std::to_string(config->grants.size()) +
                       " grants; each key makes at most " + std::to_string(config->vault.handshakesPerSecond) +
                       " handshakes a second";
    if (const std::string missing = state_.policy.missingKeys(); !missing.empty()) {
      done += "; not loaded until vaultd is restarted: " + missing;
    }
    logInfo("reloaded: " + done);
    recordAction("reload", {}, "ok", done);
    outcome.setDone(text(done));
  });
}

}  // namespace sallyport::vaultd
