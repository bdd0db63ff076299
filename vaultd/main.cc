// vaultd - holds the long-term keys and carries out protocol steps with them. The process with the keys and nothing
// else: after lock-down it has its open sockets, its nonce files, and no way to open another. See docs/architecture.md.
// Order: read the configuration, open everything, load keys, reserve nonces, lock down, serve.
#include <malloc.h>
#include <openssl/crypto.h>
#include <sodium.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <list>
#include <optional>
#include <set>
#include <utility>

#include "common/log.h"
#include "common/quiet_kj.h"
#include "common/text_page.h"
#include "vaultd/admin_service.h"
#include "vaultd/audit_files.h"
#include "vaultd/key_owners.h"
#include "vaultd/listeners.h"
#include "vaultd/metrics.h"
#include "vaultd/passphrase.h"
#include "vaultd/tokens.h"
#include "vaultd/vault_service.h"

namespace sallyport::vaultd {
namespace {

constexpr const char* HELP =
    "usage: vaultd [-c FILE] [--print-sandbox]\n"
    "\n"
    "Holds the long-term keys of sallyport and carries out the steps of its handshakes with them.\n"
    "\n"
    "  -c, --config FILE  the configuration; default: sallyport.toml here, then /etc/sallyport/sallyport.toml\n"
    "  --print-sandbox    lock down, print which layers hold, and exit: 0 all, 1 some, 2 too few to serve\n"
    "  -V, --version      print the version\n"
    "  -h, --help         this\n"
    "\n"
    "See vaultd(8) and sallyport.toml(5).\n";

// For the admin socket: a configuration may be longer than what netd or a program ever has to say, and has a call
// around it.
constexpr size_t MAX_ADMIN_MESSAGE_BYTES = MAX_CONFIG_BYTES + 64 * 1024;
// What all clients together may make us hold: connections, messages half sent, answers not read.
constexpr size_t MAX_LINK_BYTES = size_t{3} << 20;
constexpr size_t MAX_CLIENTS = 192;  // of a socket: one alone doesn't use up the bytes
constexpr uint64_t MAX_OPEN_FILES =
    1024;  // three sockets of at most 192 clients each, the nonce files, and what the loop needs

// How long a start waits for tokens, all of them together: one that is well is up by then, and nobody else's handshakes
// stand still for one that hangs. It may still come later.
constexpr uint64_t TOKEN_START_MS = 1000;
constexpr const char* RAISE_LOCKED = "raise the limit of locked memory (ulimit -l)";

struct Arguments {
  std::filesystem::path configFile;
  bool printSandbox = false;
  std::optional<int> exitNow;
};

int fail(const Problem& problem, int status = 1) {
  std::fprintf(stderr, "sallyport: error: %s\n", problem.message.c_str());
  if (!problem.hint.empty()) std::fprintf(stderr, "sallyport: hint: %s\n", problem.hint.c_str());
  return status;
}

void warn(const Problem& problem) {
  logWarning(problem.message + (problem.hint.empty() ? "" : " (" + problem.hint + ")"));
}

Arguments parseArguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "-c" || argument == "--config") {
      if (++i < argc) {
        arguments.configFile = argv[i];
      } else {
        arguments.exitNow = fail({"`" + std::string(argument) + "` needs a file", "try `vaultd --help`"}, 2);
      }
    } else if (argument == "--print-sandbox") {
      arguments.printSandbox = true;
    } else if (argument == "--help" || argument == "-h") {
      std::fputs(HELP, stdout);
      arguments.exitNow = 0;
    } else if (argument == "--version" || argument == "-V") {
      std::puts("vaultd " SALLYPORT_VERSION);
      arguments.exitNow = 0;
    } else {
      arguments.exitNow = fail({"unknown argument `" + sanitized(argument) + "`", "try `vaultd --help`"}, 2);
    }
    if (arguments.exitNow) break;
  }
  return arguments;
}

// From the sizes that it sees freed malloc would learn to keep more, up to 64 MiB: a crowd could teach it.
constexpr int KEPT_HEAP_BYTES = 128 * 1024;

void prepareLibraries() {
  // An allocator without them, a sanitizer's say, keeps its own ways.
  static_cast<void>(mallopt(M_MMAP_THRESHOLD, KEPT_HEAP_BYTES));
  static_cast<void>(mallopt(M_TRIM_THRESHOLD, KEPT_HEAP_BYTES));
  CHECK(sodium_init() >= 0);
  // No configuration file: it could name modules to load.
  CHECK(OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr) == 1);
  prepareNonceCipher();
  std::signal(SIGPIPE, SIG_IGN);
  // Already now: a crash while keys are being loaded must not leave them in a core file. Lock-down does it again.
  prctl(PR_SET_DUMPABLE, 0);
}

bool isIgnored(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

sandbox::Options sandboxOptions(const VaultConfig& config) {
  sandbox::Options options = identityOptions(config);
  options.maxOpenFiles = MAX_OPEN_FILES;
  return options;
}

int printSandbox(const std::filesystem::path& configFile) {
  // Works without a configuration: the question is what this kernel offers.
  VaultConfig config;
  if (auto loaded = loadConfig(findConfigFile(configFile))) config = loaded->vault;
  auto report = sandbox::Sandbox(sandboxOptions(config)).lockDown();
  std::string text = describe(report ? *report : report.error().report);
  if (report) text += "verdict: " + std::string(sandbox::name(report->verdict())) + "\n";
  // Not stdio: its first use asks what kind of file stdout is, and that call is no longer allowed.
  (void)!::write(STDOUT_FILENO, text.data(), text.size());
  if (!report) return fail({report.error().message, report.error().hint}, 2);
  return report->verdict() == sandbox::Verdict::Full ? 0 : 1;
}

// Of the blocks of the peer protocol; null: there is none. What can't be read ends base mode alone.
Result<std::unique_ptr<BlockClaims>, Problem> loadClaims(const std::filesystem::path& folder, const Keyring& keys,
                                                         const FileOwners& owners) {
  const auto isBlock = [](const auto& each) { return each.second->header.kind == KeyKind::PeerBlock; };
  if (std::ranges::none_of(keys.all(), isBlock)) return std::unique_ptr<BlockClaims>();
  auto claims = openClaims(folder, owners);
  if (claims) return kj::mv(*claims);
  if (claims.error().inUse) return refuse(claims.error().problem);
  warn(claims.error().problem);
  return BlockClaims::unusable(claims.error().problem.message);
}

int serve(const Config& config) {
  prepareLibraries();
  const sandbox::Options options = sandboxOptions(config.vault);
  const FileOwners owners = keyOwners(config.vault);
  sandbox::Sandbox sandbox(options);
  // Programs are started here or never: afterwards the vault holds secrets, and has no such system call.
  Keepers keepers = startKeepers(config);
  // Root opens its files as root, and becomes another user later. Others need an own user namespace, and may make one
  // only while they can be traced: before there is a secret.
  if (geteuid() != 0) sandbox.enter();

  auto arena = SecretArena::create();
  if (!arena) return fail({"no memory for secrets: " + arena.error(), RAISE_LOCKED});
  SharedKeyCache cache(**arena);
  EventLoop loop;
  const auto nowMs = [&loop] { return loop.nowMs(); };

  std::optional<Tokens> tokens;
  if (!keepers.empty()) tokens.emplace(loop, config, std::move(keepers));

  std::vector<Problem> warnings;
  auto unlock = unlockerFor(config.vault.passphraseFile, owners);
  auto keys = Keyring::load(config, **arena, cache, unlock, owners, nowMs(), warnings);
  if (!keys) return fail(keys.error());
  for (const Problem& warning : std::exchange(warnings, {})) warn(warning);
  if (keys->noneUsable()) return fail({"no key can be used", "see the warnings above"});

  AdminFacts facts;
  facts.accounts = Accounts::ofThisHost(config);
  auto grants = Grants::resolve(config, facts.accounts);
  if (!grants) return fail({format(grants.error(), config.file), grants.error().hint});
  auto claims = loadClaims(config.vault.keys, *keys, owners);
  if (!claims) return fail(claims.error());
  std::optional<BaseSessions> base;
  VaultState state{cache, *keys, {}, {}, nowMs};
  if (*claims) state.base = &base.emplace(**arena, **claims);
  state.apply(config, std::move(*grants));
  state.turnNs = [&loop] {
    return static_cast<uint64_t>((loop.now() - kj::origin<kj::TimePoint>()) / kj::NANOSECONDS);
  };
  state.preciseNs = [] {
    return static_cast<uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
  };
  if (tokens) state.tokens = &*tokens;
  facts.configFile = config.file;
  facts.memory = (*arena)->describe();
  facts.pid = static_cast<uint32_t>(getpid());
  facts.startedMs = loop.nowMs();

  // Of its own: `panic` wipes the keys, and the log goes on.
  std::unique_ptr<SecretArena> auditMemory;
  std::optional<AuditTrail> audit;
  if (config.audit.enabled) {
    auto memory = SecretArena::create(sizeof(AuditKey));
    if (!memory) return fail({"no memory for secrets: " + memory.error(), RAISE_LOCKED});
    auditMemory = std::move(*memory);
    if (auditMemory->kind() != (*arena)->kind())
      facts.memory += ", audit key in " + std::string(auditMemory->describe());
    auto* const key = new (auditMemory->takeBlock(sizeof(AuditKey)).data()) AuditKey;
    auto log = openAuditLog(config.audit, owners, *key, AuditTrail::wallMs());
    if (!log) return fail(log.error());
    audit.emplace(loop, std::move(*log), config.audit);
    state.recorder = facts.audit = &*audit;
    facts.auditRequired = config.audit.required;
  }

  if (tokens) {
    tokens->attach(state);
    tokens->settle(TOKEN_START_MS);
    unlock = tokens->unlocker(std::move(unlock));
  }
  const auto rest = keys->openWithoutToken(config.vault.keys, unlock, state.nowUnix(), warnings);
  unlock = nullptr;  // it remembers the passphrase
  if (!rest) return fail(rest.error());
  for (const Problem& warning : warnings) warn(warning);
  wipeDeadStackOfLoading();

  const auto sockets = openListeners(config, options, facts.accounts);
  if (!sockets) return fail(sockets.error());
  const LinkLimits limits;
  LinkLimits adminLimits;
  adminLimits.maxMessageBytes = MAX_ADMIN_MESSAGE_BYTES;
  LinkBudget budget(loop, MAX_LINK_BYTES);
  RpcServer net(loop, sockets->net, admit("net", sockets->netUsers, [&] { return kj::heap<NetService>(state); }),
                limits, MAX_CLIENTS, &budget);
  RpcServer app(loop, sockets->app,
                admitPrograms(state, std::string(MAIN_SOCKET), sockets->appUsers, sockets->appGroup), limits,
                MAX_CLIENTS, &budget);
  std::list<RpcServer> programs;
  for (const auto& [name, fd] : sockets->programs)
    programs.emplace_back(loop, fd, admitPrograms(state, name, {}), limits, MAX_CLIENTS, &budget);
  RpcServer admin(loop, sockets->admin,
                  admit("admin", sockets->appUsers,
                        [&](const PeerCredentials& peer) { return kj::heap<AdminService>(state, facts, peer); }),
                  adminLimits, MAX_CLIENTS, &budget);
  std::optional<TextPageServer> metrics;
  if (sockets->metrics >= 0)
    metrics.emplace(loop, kj::AutoCloseFd(sockets->metrics), [&state] { return metricsPage(state); });
  facts.servers = {&net, &app, &admin};
  for (const RpcServer& server : programs) facts.servers.push_back(&server);

  // Who has it ignored stops us by SIGTERM, in his own order: `sallyport up` does, for Ctrl-C.
  std::vector<int> watched{SIGTERM, SIGHUP};
  if (!isIgnored(SIGINT)) watched.push_back(SIGINT);
  SignalWatcher signals(loop, watched, [&](int signal) {
    if (signal == SIGHUP)
      return logWarning("SIGHUP ignored: the vault can't open files any more, use `sallyport reload`");
    loop.stop();
  });

  auto report = sandbox.lockDown();
  if (!report) return fail({report.error().message, report.error().hint});
  facts.sandbox = std::move(*report);

  logInfo("serving keys=" + std::to_string(keys->all().size()) + " memory=" + facts.memory +
          " sandbox=" + std::string(sandbox::name(facts.sandbox.verdict())));
  AuditRecord started;
  started.verb = "start";
  started.outcome = "ok";
  started.note = "vaultd " SALLYPORT_VERSION ", pid " + std::to_string(facts.pid) + ", sandbox " +
                 std::string(sandbox::name(facts.sandbox.verdict()));
  state.recordEvent(std::move(started));
  loop.run();
  if (audit) audit->stop();
  logInfo("stopped");
  return 0;  // the arena is wiped on the way out
}

int run(int argc, char** argv) {
  const Arguments arguments = parseArguments(argc, argv);
  if (arguments.exitNow) return *arguments.exitNow;
  startLog("vaultd");
  if (arguments.printSandbox) return printSandbox(arguments.configFile);

  const std::filesystem::path file = findConfigFile(arguments.configFile);
  auto config = loadConfig(file);
  if (!config) {
    for (const ConfigError& error : eachOf(config.error())) fail({format(error, file), error.hint});
    return 1;
  }
  return serve(*config);
}

}  // namespace
}  // namespace sallyport::vaultd

int main(int argc, char** argv) {
  sallyport::QuietKj quiet;
  try {
    return sallyport::vaultd::run(argc, argv);
  } catch (const kj::Exception& e) {
    return sallyport::vaultd::fail({sallyport::sanitized({e.getDescription().begin(), e.getDescription().size()}), {}});
  } catch (const std::exception& e) { return sallyport::vaultd::fail({e.what(), {}}); }
}
