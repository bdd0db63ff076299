#include "vaultd/admin_service.h"

#include <algorithm>

#include "common/log.h"
#include "vaultd/batch.h"

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
    fillCounters(status);
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
    if (const KeyVersion* version = key->activeFacts(state_.nowUnix())) {
      copyInto(out.initPublicKey(PublicKey::SIZE), version->publicKey.span());
    }
    out.setState(key->locked ? "locked" : key->usable ? "active" : "unusable");
    out.setSealed(literal(describe(key->header.seal)));
    out.setNonce(text(key->ledger->describe()));
  }
}

void AdminService::fillCounters(proto::VaultStatus::Builder status) {
  uint64_t refills = 0;
  for (const auto& [name, key] : state_.keys.all()) refills += key->ledger->refills();
  auto counters = status.initCounters(Counters::TOTAL + 6);
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

  uint64_t accepted = 0;
  uint64_t refused = 0;
  std::array<uint64_t, CUT_OFF_COUNT> cutOff{};
  for (const RpcServer* server : facts_.servers) {
    for (size_t reason = 0; reason < CUT_OFF_COUNT; ++reason) cutOff[reason] += server->stats().cutOff[reason];
    accepted += server->stats().accepted;
    refused += server->stats().refused;
  }
  add("clients_accepted", accepted);
  add("clients_refused", refused);
  auto out = status.initClientsCutOff(CUT_OFF_COUNT - 1);  // without CutOff::None
  for (unsigned reason = 1; reason < CUT_OFF_COUNT; ++reason) {
    out[reason - 1].setName(literal(name(static_cast<CutOff>(reason))));
    out[reason - 1].setValue(cutOff[reason]);
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
    state_.policy = Policy(*config, state_.keys);
    state_.authority = Authority(std::move(*grants), state_.nowMs());
    state_.keys.setRate(config->vault.handshakesPerSecond);
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

    std::string done = "vault: " + std::to_string(config->listens.size()) + " listen and " +
                       std::to_string(config->connects.size()) + " connect entries, " +
                       std::to_string(config->peers.size()) + " peers, " + std::to_string(config->grants.size()) +
                       " grants, " + std::to_string(config->vault.handshakesPerSecond) + " handshakes a second and key";
    if (const std::string missing = state_.policy.missingKeys(); !missing.empty()) {
      done += "; not loaded until vaultd is restarted: " + missing;
    }
    logInfo("reload done " + done);
    recordAction("reload", {}, "ok", done);
    outcome.setDone(text(done));
  });
}

}  // namespace sallyport::vaultd
