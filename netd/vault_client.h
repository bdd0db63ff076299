// vault_client.h - a worker's view of vaultd: protocol steps, batched. Part of: netd-worker (edge: speaks
// proto/vault.capnp). A question goes out at once when nothing is under way, else with those that gather until an
// answer comes: at most 64 a call, at most two calls of a kind under way. All of this is for each key by itself: one in
// a token that is slow, or hangs, is waited for by nobody but who needs it. When the vault goes away, questions wait
// for its return as long as their connection lives; those under way are asked again, which is harmless: every step only
// reads, draws another nonce or salt, or is refused because the salt is used up.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <kj/async.h>

#include "common/event_loop.h"
#include "common/rpc.h"
#include "netd/base_session.h"
#include "netd/call_room.h"
#include "netd/entries.h"
#include "netd/handshake.h"
#include "netd/salt_pool.h"
#include "netd/stats.h"
#include "peer/hard_keys.h"
#include "proto/vault.capnp.h"

namespace sallyport::netd {

// The steps of the peer protocol's hard mode. A salt that the vault drew works once.
struct PeerSaltRequest {
  bool listen = false;
};
struct PeerSaltDrawn {
  wire::PeerParty party;
  wire::PeerSalt salt;
  uint32_t blockVersion;
};
struct PeerKeysRequest {
  bool listen = false;
  wire::PeerSalt ownSalt;
  wire::PeerSalt peerSalt;
};
struct PeerSecrets {
  peer::SendSecret send;
  peer::ReceiveSecret receive;
  uint32_t blockVersion;
};
// The listening side has the peer's salt when it asks: both steps are one.
struct PeerAcceptRequest {
  wire::PeerSalt peerSalt;
};
struct PeerAccepted {
  wire::PeerParty party;
  wire::PeerSalt ownSalt;
  PeerSecrets secrets;
  std::vector<PeerSecrets> others;  // of other versions of the block, while it is being rotated
};

struct VaultLane;

class VaultClient {
 public:
  template <typename Answer>
  using OnAnswer = std::function<void(Result<Answer, wire::DropReason>)>;

  // A question under way. Destroying it withdraws the question: the answer is then thrown away.
  class Question {
   public:
    virtual ~Question() = default;
  };

  VaultClient(EventLoop& loop, Stats& stats, std::function<void()> onLost);
  ~VaultClient();

  // Takes over a connected socket; replaces a connection that is still there.
  void connect(int fd);
  bool connected() const { return client_ != nullptr; }
  // Questions that wait for their turn, some of them withdrawn.
  size_t waiting() const;

  // Never answers inside the call.
  [[nodiscard]] std::unique_ptr<Question> sealCookie(const Entry& entry, SealCookieRequest request,
                                                     OnAnswer<SealedCookie> onAnswer);
  [[nodiscard]] std::unique_ptr<Question> verifyVouch(const Entry& entry, VerifyVouchRequest request,
                                                      OnAnswer<VerifiedVouch> onAnswer);
  [[nodiscard]] std::unique_ptr<Question> makeVouch(const Entry& entry, MakeVouchRequest request,
                                                    OnAnswer<MadeVouch> onAnswer);
  [[nodiscard]] std::unique_ptr<Question> drawPeerSalt(const Entry& entry, PeerSaltRequest request,
                                                       OnAnswer<PeerSaltDrawn> onAnswer);
  // A salt of a [[connect]] entry that was drawn ahead, less than `lifeMs` ago; without one drawPeerSalt() is left. Has
  // more drawn, for those that come after.
  std::optional<PeerSaltDrawn> takePeerSalt(const Entry& entry, uint64_t lifeMs);
  // Salts that were drawn ahead may be of another party or block now.
  void forgetPeerSalts() { pools_.clear(); }
  [[nodiscard]] std::unique_ptr<Question> derivePeerKeys(const Entry& entry, PeerKeysRequest request,
                                                         OnAnswer<PeerSecrets> onAnswer);
  [[nodiscard]] std::unique_ptr<Question> acceptPeer(const Entry& entry, PeerAcceptRequest request,
                                                     OnAnswer<PeerAccepted> onAnswer);
  // Base mode: the vault's half of one connection, and what became of its `first` bytes, if there are any. Not waited
  // for while there is no vault: such a connection dies with the vault in any case.
  struct BegunSession {
    std::unique_ptr<BaseSession> session;
    std::optional<BaseSession::Opened> opened;  // valid inside the answer alone
  };
  [[nodiscard]] std::unique_ptr<Question> openPeerSession(const Entry& entry, bool listen, ByteSpan first,
                                                          OnAnswer<BegunSession> onAnswer);

 private:
  struct Pool {
    SaltPool<PeerSaltDrawn> salts;
    std::map<uint64_t, std::unique_ptr<Question>> questions;  // under way
    uint64_t next = 0;
  };

  template <typename Step>
  std::unique_ptr<Question> ask(const Entry& entry, typename Step::Request request,
                                OnAnswer<typename Step::Answer> onAnswer);
  void pump();
  template <typename Step>
  void pumpEach(proto::Net::Client& net);
  template <typename Step>
  bool beginCall(proto::Net::Client& net, const std::shared_ptr<VaultLane>& lane);
  void beginPeerSession(const std::string& entry, bool listen, ByteSpan first,
                        const std::function<void(Result<BegunSession, wire::DropReason>)>& tell);
  void schedule();
  void keepRead(std::shared_ptr<void> answer);
  void disconnect();
  void lost();

  EventLoop& loop_;
  Stats& stats_;
  std::function<void()> onLost_;
  std::unique_ptr<RpcClient> client_;
  kj::Maybe<proto::Net::Client> net_;
  uint64_t generation_ = 0;
  bool scheduled_ = false;
  std::map<std::string, std::shared_ptr<VaultLane>> lanes_;  // by key; those that have something to do
  std::string lastTurn_;                                     // its key
  CallRoom room_;
  std::vector<std::shared_ptr<void>> read_;  // answers that are done with, but not let go yet
  bool letGoArmed_ = false;
  kj::Promise<void> letGo_ = nullptr;
  std::map<std::string, std::unique_ptr<Pool>> pools_;  // by entry
  std::shared_ptr<CallGate> gate_;                      // of base mode; its sessions may outlive us
  std::shared_ptr<bool> alive_;
};

}  // namespace sallyport::netd
