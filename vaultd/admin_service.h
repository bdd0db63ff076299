// admin_service.h - status, reload, lock, unlock and panic, for operators. Process: vaultd alone. See
// proto/vault_admin.capnp. Status holds no secret. Reload takes the text of a configuration: the vault can open no file
// any more.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/rpc.h"
#include "proto/vault_admin.capnp.h"
#include "sandbox/sandbox.h"
#include "vaultd/audit_trail.h"
#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

// What status tells beyond VaultState. Filled by main; must outlive the services.
struct AdminFacts {
  std::filesystem::path configFile;  // absolute: reload resolves relative paths as the start did
  std::string memory;                // SecretArena::describe()
  uint32_t pid = 0;
  uint64_t startedMs = 0;
  Accounts accounts;  // of the start: reload resolves the names of grants by them
  sandbox::Report sandbox;
  AuditTrail* audit = nullptr;  // null: no audit log
  bool auditRequired = false;
  std::vector<const RpcServer*> servers;  // whose cut-off clients are counted
};

class AdminService final : public proto::Admin::Server {
 public:
  AdminService(VaultState& state, const AdminFacts& facts, const PeerCredentials& peer = {})
      : state_(state), facts_(facts), caller_{"admin", peer.uid, peer.gid, static_cast<uint32_t>(peer.pid)} {}

 protected:
  kj::Promise<void> status(StatusContext context) override;
  kj::Promise<void> reload(ReloadContext context) override;
  kj::Promise<void> lock(LockContext context) override;
  kj::Promise<void> unlock(UnlockContext context) override;
  kj::Promise<void> panic(PanicContext context) override;
  kj::Promise<void> auditExported(AuditExportedContext context) override;

 private:
  void fillKeys(proto::VaultStatus::Builder status);
  void fillBlock(const VaultKey& key, proto::KeyStatus::Builder out);
  void fillUses(proto::VaultStatus::Builder status);
  Result<std::string, Problem> unlockKey(std::string_view keyFile, ByteSpan fileKey, Refusal& reason);
  void refuseReload(proto::ReloadOutcome::Builder outcome, const ConfigError& error);
  void fillCounters(proto::VaultStatus::Builder status);
  void fillAudit(proto::AuditStatus::Builder status);
  // Writes down what an operator did.
  void recordAction(std::string verb, std::string key, std::string outcome, std::string note);

  VaultState& state_;
  const AdminFacts& facts_;
  const AuditCaller caller_;
};

}  // namespace sallyport::vaultd
