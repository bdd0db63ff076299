#include "vaultd/audit_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

class DiskFile final : public AuditFile {
 public:
  DiskFile(std::string name, kj::AutoCloseFd fd) : name_(std::move(name)), fd_(kj::mv(fd)) {}
  ~DiskFile() noexcept override {}  // closing throws in KJ; at the end of the process there is nobody to catch it

  std::string name() const override { return name_; }
  int64_t size() override {
    struct stat status;
    return ::fstat(fd_.get(), &status) == 0 ? status.st_size : -errno;
  }
  ssize_t read(size_t offset, MutableByteSpan bytes) override {
    const ssize_t got = ::pread(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    return got < 0 ? -errno : got;
  }
  ssize_t write(size_t offset, ByteSpan bytes) override {
    const ssize_t written = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    return written < 0 ? -errno : written;
  }
  int truncate(size_t size) override { return ::ftruncate(fd_.get(), static_cast<off_t>(size)) == 0 ? 0 : -errno; }
  int sync() override { return ::fdatasync(fd_.get()) == 0 ? 0 : -errno; }

 private:
  std::string name_;
  kj::AutoCloseFd fd_;
};

// Opened for reading and writing; a missing one is made empty if it may be.
Result<kj::AutoCloseFd, Problem> openOrMake(const fs::path& path, const FileOwners& owners, bool mayMake) {
  bool missing = false;
  auto fd = openPrivate(path, O_RDWR, owners, &missing);
  if (fd || !missing) return fd;
  if (mayMake) return createPrivate(path, {});
  return refuse(Problem{path.string() + " is missing: the log has a hole",
                        "put it back; the folder moved away as a whole, a new log begins"});
}

bool lock(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

// The key of record 1, written down for who is to check the log. One that lies there already, without a log, is that of
// a start that a crash cut short.
Result<AuditKey, Problem> drawFirstKey(const fs::path& path, const FileOwners& owners) {
  bool missing = false;
  const auto found = readPrivate(path, owners, &missing);
  if (found) {
    auto key = parseVerifyKey(found->expose());
    if (!key) return refuse(Problem{path.string() + " is not a key of an audit log", "move it away"});
    return std::move(*key);
  }
  if (!missing) return refuse(found.error());
  AuditKey key = AuditKey::random();
  std::string text = verifyKeyText(key);
  auto made = createPrivate(path, text);
  wipe(std::as_writable_bytes(std::span(text)));
  if (!made) return refuse(made.error());
  return key;
}

}  // namespace

Result<std::unique_ptr<AuditLog>, Problem> openAuditLog(const AuditConfig& config, const FileOwners& owners,
                                                        AuditKey& key, int64_t nowMs) {
  if (auto good = checkFolder(config.folder, true); !good) return refuse(good.error());
  const fs::path statePath = config.folder / "state";
  auto stateFd = openOrMake(statePath, owners, true);
  if (!stateFd) return refuse(stateFd.error());
  if (!lock(stateFd->get())) {
    return refuse(Problem{statePath.string() + " is in use: another vaultd writes this audit log",
                          "stop it first, or give this one a folder of its own"});
  }
  AuditFiles files;
  files.state = std::make_unique<DiskFile>(statePath.string(), kj::mv(*stateFd));
  // A state that can't be read matters only if there are records.
  const auto filesOfState = AuditLog::filesOf(*files.state);
  const uint64_t had = filesOfState ? *filesOfState : 0;
  if (had > config.files) {
    return refuse(Problem{config.folder.string() + ": the log has " + std::to_string(had) +
                              " files, [audit] files is " + std::to_string(config.files),
                          "a log grows, but doesn't shrink: export it, move the folder away, and a new one begins"});
  }
  for (uint32_t i = 0; i < config.files; ++i) {
    const fs::path path = config.folder / (std::to_string(i) + ".log");
    auto fd = openOrMake(path, owners, i >= had);
    if (!fd) return refuse(fd.error());
    files.segments.push_back(std::make_unique<DiskFile>(path.string(), kj::mv(*fd)));
    if (had == 0 && files.segments.back()->size() != 0) {
      if (!filesOfState) return refuse(filesOfState.error());
      return refuse(Problem{path.string() + " holds records, but " + statePath.string() + " is missing or empty",
                            "put it back; the folder moved away as a whole, a new log begins"});
    }
  }
  if (had == 0) {
    auto drawn = drawFirstKey(config.folder / "verify.key", owners);
    if (!drawn) return refuse(drawn.error());
    key = std::move(*drawn);
  }
  return AuditLog::open(std::move(files), {size_t{config.fileMiB} << 20, config.refuseWhenFull}, key, nowMs);
}

}  // namespace sallyport::vaultd
