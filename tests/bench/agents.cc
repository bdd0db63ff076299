// agents.cc - what Debian's key agents do per second, asked over their own sockets. Part of: tests/bench.
//
//   agents ssh SOCKET KEY_BLOB_BASE64 [--width N] [--secs S] [--pids P]     Ed25519 signatures of 64 bytes
//   agents gpg SOCKET KEYGRIP         [--secs S] [--pids P]                 PKDECRYPT of cv25519: the shared point
//
// With --width so many requests are on their way at a time (ssh-agent answers in order). The answer is one line of
// JSON.
#include <sodium.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <deque>
#include <stdexcept>

#include "common/bytes.h"
#include "tests/bench/measure.h"

namespace sallyport::bench {
namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

class Stream {
 public:
  explicit Stream(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) fail(path + " is too long");
    std::memcpy(address.sun_path, path.data(), path.size());
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      fail(path + ": no connection");
  }
  ~Stream() { ::close(fd_); }
  Stream(const Stream&) = delete;

  void send(const std::string& bytes) {
    if (::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) fail("can't send");
  }
  std::string take(size_t size) {
    while (buffer_.size() < size) fill();
    return cut(size);
  }
  std::string line() {
    size_t end = 0;
    while ((end = buffer_.find('\n')) == std::string::npos) fill();
    std::string text = cut(end + 1);
    text.pop_back();
    return text;
  }

 private:
  void fill() {
    char piece[4096];
    const auto got = ::recv(fd_, piece, sizeof piece, 0);
    if (got <= 0) fail("the agent hung up");
    buffer_.append(piece, static_cast<size_t>(got));
  }
  std::string cut(size_t size) {
    std::string text = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return text;
  }

  int fd_;
  std::string buffer_;
};

std::string be32(size_t value) {
  std::string text;
  for (const int shift : {24, 16, 8, 0}) text += static_cast<char>(value >> shift);
  return text;
}
std::string sized(const std::string& text) { return be32(text.size()) + text; }

class SshAgent {
 public:
  SshAgent(const std::string& socket, const std::string& keyBase64) : stream_(socket) {
    const auto blob = fromBase64(keyBase64);
    if (!blob) fail("the key is not base64");
    const std::string key(reinterpret_cast<const char*>(blob->data()), blob->size());
    request_ = sized('\x0d' + sized(key) + sized(std::string(64, 'x')) + be32(0));  // SSH_AGENTC_SIGN_REQUEST
  }
  void ask() { stream_.send(request_); }
  void answer() {
    size_t size = 0;
    for (const char c : stream_.take(4)) size = size << 8 | static_cast<unsigned char>(c);
    if (stream_.take(size)[0] != '\x0e') fail("ssh-agent didn't sign");
  }

 private:
  Stream stream_;
  std::string request_;
};

class GpgAgent {
 public:
  GpgAgent(const std::string& socket, const std::string& keygrip) : stream_(socket) {
    expect("OK");
    stream_.send("SETKEY " + keygrip + "\n");
    expect("OK");
    unsigned char publicKey[32];
    unsigned char secret[32];
    crypto_box_keypair(publicKey, secret);
    std::string point = "\x40" + std::string(reinterpret_cast<const char*>(publicKey), 32);
    const std::string value = "(7:enc-val(4:ecdh(1:s1:x)(1:e33:" + point + ")))";
    for (const char c : value) {
      char escaped[4];
      std::snprintf(escaped, sizeof escaped, "%%%02X", static_cast<unsigned char>(c));
      data_ += c == '%' || c == '\n' || c == '\r' ? escaped : std::string(1, c);
    }
    data_ = "D " + data_ + "\nEND\n";
  }
  void ask() { stream_.send("PKDECRYPT\n"); }
  void answer() {
    expect("INQUIRE CIPHERTEXT");
    stream_.send(data_);
    expect("D ");
    expect("OK");
  }

 private:
  // Skips status and comment lines.
  void expect(const std::string& beginning) {
    std::string line;
    do line = stream_.line();
    while (line.starts_with("S ") || line.starts_with("#"));
    if (!line.starts_with(beginning)) fail("gpg-agent says `" + line + "`");
  }

  Stream stream_;
  std::string data_;
};

template <typename Agent>
void measure(Agent& agent, size_t width, double secs, const std::vector<int>& pids) {
  std::vector<double> micros;
  std::deque<double> asked;
  const auto ask = [&] {
    asked.push_back(now());
    agent.ask();
  };
  ask();
  agent.answer();  // once in vain: it may load the key now
  asked.clear();
  const double began = now();
  const double cpuBefore = cpuSeconds(pids);
  for (size_t i = 0; i < width; ++i) ask();
  while (!asked.empty()) {
    agent.answer();
    micros.push_back((now() - asked.front()) * 1e6);
    asked.pop_front();
    if (now() < began + secs) ask();
  }
  const auto count = static_cast<double>(micros.size());
  const double perSecond = count / (now() - began);
  const double cpu = (cpuSeconds(pids) - cpuBefore) * 1e6 / count;
  report({{"per_s", perSecond},
          {"p50_us", percentile(micros, 0.5)},
          {"p99_us", percentile(micros, 0.99)},
          {"cpu_us", cpu}});
}

int main(int argc, char** argv) {
  if (argc < 4) return std::fputs("usage: see the top of tests/bench/agents.cc\n", stderr), 2;
  if (sodium_init() < 0) return 1;
  size_t width = 1;
  double secs = 1;
  std::vector<int> pids;
  for (int i = 4; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--width") width = std::stoul(argv[i + 1]);
    if (name == "--secs") secs = std::atof(argv[i + 1]);
    if (name == "--pids") pids = parsePids(argv[i + 1]);
  }
  if (std::string(argv[1]) == "ssh") {
    SshAgent agent(argv[2], argv[3]);
    measure(agent, width, secs, pids);
  } else {
    GpgAgent agent(argv[2], argv[3]);
    measure(agent, 1, secs, pids);
  }
  return 0;
}

}  // namespace
}  // namespace sallyport::bench

int main(int argc, char** argv) {
  try {
    return sallyport::bench::main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "agents: error: %s\n", e.what());
    return 1;
  }
}
