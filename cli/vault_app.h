// vault_app.h - what `sallyport box|open|sign` ask of a running vault, as any program does. Part of: cli.
// docs/protocol.md §8. The long-term key stays there: what comes back are boxes, texts and signatures. Errors are text
// for people, with a remedy where there is one.
#pragma once

#include <vector>

#include "cli/arguments.h"
#include "cli/daemon_client.h"
#include "cli/data_files.h"
#include "proto/file/box_file.h"
#include "proto/file/signature_file.h"
#include "proto/vault.capnp.h"
#include "vaultd/problem.h"

namespace sallyport::cli {

using vaultd::Problem;

// The public halves of a key of the vault, X25519 or Ed25519.
struct VaultKeyFacts {
  std::array<std::byte, 32> active;
  uint32_t version = 0;
  std::vector<std::array<std::byte, 32>> opening;  // of all versions that may open
};

// What `KEY [FILE]` and the options of box, open and sign say: where the vault listens for programs ([vault] socket, or
// the [[vault_socket]] of --socket), and the input. The error has been printed.
struct DataCommand {
  Config config;
  std::filesystem::path socket;
  std::string key;
  InputFile input;
};
std::optional<DataCommand> dataCommand(const Arguments& arguments);

class VaultApp {
 public:
  // `socket`: where it listens for programs.
  static Result<VaultApp, Problem> connect(EventLoop& loop, const std::filesystem::path& socket);

  Result<VaultKeyFacts, Problem> facts(const std::string& key);
  // Has the content key boxed to every recipient of `head`, and fills in all of it but the stream's header. The keys of
  // the recipients must be there.
  Result<void, Problem> boxHead(const std::string& key, file::BoxHead& head, const file::ContentKey& content,
                                const std::vector<file::TagKey>& tags);
  // What is in the box of the recipient at `index`; `name` is the file's, for messages.
  Result<file::FileKeys, Problem> openHead(const std::string& key, const file::BoxHead& head, size_t index,
                                           const std::string& name);
  struct Signed {
    file::Signature signature;
    uint32_t version = 0;
  };
  Result<Signed, Problem> sign(const std::string& key, ByteSpan text);

 private:
  VaultApp(EventLoop& loop, std::unique_ptr<DaemonClient> client) : loop_(&loop), client_(std::move(client)) {}

  Result<proto::Key::Client, Problem> granted(const std::string& key, proto::Verb verb);

  EventLoop* loop_;
  std::unique_ptr<DaemonClient> client_;
};

}  // namespace sallyport::cli
