#include "vaultd/block_claims.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vaultd/state_file.h"

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view MAGIC = "SPCLAIM1";
constexpr size_t PLACE_AT = MAGIC.size();
constexpr size_t HASH_BYTES = 16;
constexpr size_t TIME_AT = PublicKey::SIZE;
using Header = std::array<std::byte, BlockClaims::HEADER_BYTES>;
using Record = std::array<std::byte, BlockClaims::RECORD_BYTES>;

template <size_t N>
void seal(std::array<std::byte, N>& bytes, std::string_view domain) {
  const auto hash = stateHash(domain, ByteSpan(bytes).first(N - HASH_BYTES));
  std::ranges::copy(hash, bytes.end() - HASH_BYTES);
}

template <size_t N>
bool isWhole(const std::array<std::byte, N>& bytes, std::string_view domain) {
  const auto hash = stateHash(domain, ByteSpan(bytes).first(N - HASH_BYTES));
  return std::ranges::equal(hash, ByteSpan(bytes).last(HASH_BYTES));
}

// When the vault wrote last: an older copy that is put back in place has the file's inode and birth, but its change
// came later. In a sector of its own, and zero in the header's hash.
constexpr size_t STAMP_AT = 512;
using Stamp = std::array<std::byte, 8 + HASH_BYTES>;
constexpr std::string_view STAMP_DOMAIN = "sallyport claims stamp";
constexpr int64_t STAMP_OFF_NS = 100'000'000;  // between clock and file system
constexpr int64_t NO_CLOCK = INT64_MAX;        // the file system's changes have times of another clock

int64_t nanoseconds(const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; }

int64_t clockNs() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return nanoseconds(now);
}

Stamp stampOf(int64_t ns) {
  Stamp stamp;
  for (size_t i = 0; i < 8; ++i) stamp[i] = static_cast<std::byte>(static_cast<uint64_t>(ns) >> (56 - 8 * i));
  seal(stamp, STAMP_DOMAIN);
  return stamp;
}

bool isNear(int64_t a, int64_t b) { return a - b <= STAMP_OFF_NS && b - a <= STAMP_OFF_NS; }

int64_t changedNs(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? nanoseconds(status.st_ctim) : 0;
}

// Nobody has changed the file since its vault did.
bool isAsItWasLeft(int fd) {
  Stamp stamp;
  if (::pread(fd, stamp.data(), stamp.size(), STAMP_AT) != static_cast<ssize_t>(stamp.size())) return false;
  if (!isWhole(stamp, STAMP_DOMAIN)) return false;
  if (stamp == stampOf(NO_CLOCK)) return true;
  uint64_t ns = 0;
  for (size_t i = 0; i < 8; ++i) ns = ns << 8 | static_cast<uint64_t>(stamp[i]);
  return isNear(changedNs(fd), static_cast<int64_t>(ns));
}

// False: errno says why.
bool stampFile(int fd) {
  const auto write = [fd](int64_t ns) {
    const Stamp stamp = stampOf(ns);
    return ::pwrite(fd, stamp.data(), stamp.size(), STAMP_AT) == static_cast<ssize_t>(stamp.size());
  };
  for (int tries = 0; tries < 5; ++tries) {
    const int64_t now = clockNs();
    if (!write(now)) return false;
    if (isNear(changedNs(fd), now)) return ::fsync(fd) == 0;
  }
  return write(NO_CLOCK) && ::fsync(fd) == 0;
}

constexpr std::string_view HEADER_DOMAIN = "sallyport claims";
constexpr std::string_view RECORD_DOMAIN = "sallyport claim";

Record recordOf(const PublicKey& fingerprint, int64_t nowUnix) {
  Record record{};
  std::ranges::copy(fingerprint.span(), record.begin());
  for (size_t i = 0; i < 8; ++i)
    record[TIME_AT + i] = static_cast<std::byte>(static_cast<uint64_t>(nowUnix) >> (56 - 8 * i));
  seal(record, RECORD_DOMAIN);
  return record;
}

bool isZero(ByteSpan bytes) {
  return std::ranges::all_of(bytes, [](std::byte each) { return each == std::byte{}; });
}

Unexpected<Problem> unfit(std::string what) {
  return refuse(Problem{std::move(what) + ": every block counts as used in base mode",
                        "remove the file while no vault runs, then pair anew: blocks that are there stay used"});
}

bool readWhole(NonceDisk& disk, size_t offset, MutableByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t got = disk.read(offset, bytes);
    if (got <= 0) return false;
    offset += static_cast<size_t>(got);
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return true;
}

// Every block of the folder, whatever its state. A key file that can't be read is a problem: its blocks might be
// unused.
Result<std::vector<PublicKey>, Problem> blocksIn(const fs::path& folder) {
  std::error_code failure;
  if (!fs::exists(folder, failure)) return std::vector<PublicKey>();
  const auto keys = listKeys(folder);
  if (!keys) return refuse(keys.error());
  std::vector<PublicKey> blocks;
  for (const ListedKey& key : *keys) {
    if (!key.header || key.header->kind != KeyKind::PeerBlock) continue;
    for (const KeyVersion& version : key.header->versions) blocks.push_back(version.publicKey);
  }
  return blocks;
}

// Runs on the temporary file, so the place is the file's.
Result<kj::AutoCloseFd, Problem> makeClaims(const fs::path& folder, Creation& creation) {
  const auto used = blocksIn(folder);
  if (!used) return refuse(used.error());
  creation.prepare = [&](int fd) {
    const auto image = BlockClaims::newImage(placeOfFile(fd), *used, unixNow());
    if (!lockFile(fd) || !allocateFile(fd, image.size())) return false;
    const ssize_t written = ::pwrite(fd, image.data(), image.size(), 0);
    if (written != static_cast<ssize_t>(image.size())) {
      if (written >= 0) errno = ENOSPC;
      return false;
    }
    return ::fsync(fd) == 0;
  };
  return createPrivate(claimsPath(folder), {}, &creation);
}

}  // namespace

BlockClaims::BlockClaims() = default;
BlockClaims::~BlockClaims() = default;

std::vector<std::byte> BlockClaims::newImage(const Place& place, std::span<const PublicKey> used, int64_t nowUnix) {
  Header header{};
  std::memcpy(header.data(), MAGIC.data(), MAGIC.size());
  std::ranges::copy(place, header.begin() + PLACE_AT);
  seal(header, HEADER_DOMAIN);
  std::vector<std::byte> image(header.begin(), header.end());
  for (const PublicKey& fingerprint : used) {
    const Record record = recordOf(fingerprint, nowUnix);
    image.insert(image.end(), record.begin(), record.end());
  }
  return image;
}

Result<std::unique_ptr<BlockClaims>, Problem> BlockClaims::open(std::unique_ptr<NonceDisk> disk, const Place& place,
                                                                size_t fileBytes) {
  Header header;
  if (fileBytes < HEADER_BYTES || (fileBytes - HEADER_BYTES) % RECORD_BYTES != 0 || !readWhole(*disk, 0, header))
    return unfit("cut off or can't be read");
  std::fill_n(header.begin() + STAMP_AT, sizeof(Stamp), std::byte{});
  if (std::memcmp(header.data(), MAGIC.data(), MAGIC.size()) != 0 || !isWhole(header, HEADER_DOMAIN))
    return unfit("damaged");
  if (!std::ranges::equal(place, ByteSpan(header).subspan(PLACE_AT, place.size())))
    return unfit("copied or restored from somewhere: nobody knows what was claimed since");
  std::unique_ptr<BlockClaims> claims(new BlockClaims);
  claims->disk_ = std::move(disk);
  claims->room_ = std::min((fileBytes - HEADER_BYTES) / RECORD_BYTES, MAX_RECORDS);
  bool ended = false;
  for (size_t i = 0; i < claims->room_; ++i) {
    Record record;
    if (!readWhole(*claims->disk_, HEADER_BYTES + i * RECORD_BYTES, record)) return unfit("can't be read");
    if (isZero(record)) {
      ended = true;
      continue;
    }
    // Nothing follows the first free record, and a record is written whole or not at all.
    if (ended || !isWhole(record, RECORD_DOMAIN)) return unfit("damaged");
    claims->claimed_.insert(PublicKey(ByteSpan(record).first(PublicKey::SIZE)));
    claims->next_ = i + 1;
  }
  return claims;
}

std::unique_ptr<BlockClaims> BlockClaims::unusable(std::string why) {
  std::unique_ptr<BlockClaims> claims(new BlockClaims);
  claims->why_ = std::move(why);
  return claims;
}

Result<void, ClaimRefusal> BlockClaims::claim(const PublicKey& fingerprint, int64_t nowUnix) {
  if (disk_ == nullptr) return refuse(ClaimRefusal::Used);
  if (claimed_.contains(fingerprint)) return refuse(ClaimRefusal::Used);
  if (!why_.empty()) return refuse(ClaimRefusal::Unavailable);
  if (next_ == room_) {
    why_ = "full: a restart makes room";
    if (room_ == MAX_RECORDS) why_ = "full";
    return refuse(ClaimRefusal::Unavailable);
  }
  // From here on it counts as used, whatever the disk says.
  claimed_.insert(fingerprint);
  const Record record = recordOf(fingerprint, nowUnix);
  const int64_t began = clockNs();
  const Stamp stamp = stampOf(began);
  ssize_t written = disk_->write(STAMP_AT, stamp);
  if (written == static_cast<ssize_t>(stamp.size()))
    written = disk_->write(HEADER_BYTES + next_ * RECORD_BYTES, record);
  else if (written >= 0)
    written = 0;
  // It was stopped in between.
  if (!isNear(clockNs(), began)) disk_->write(STAMP_AT, stampOf(clockNs()));
  if (written != static_cast<ssize_t>(record.size())) {
    why_ = "can't be written: " + std::string(std::strerror(written < 0 ? static_cast<int>(-written) : ENOSPC));
    return refuse(ClaimRefusal::Unavailable);
  }
  if (const int error = disk_->sync(); error != 0) {
    why_ = "can't be made durable: " + std::string(std::strerror(-error));
    return refuse(ClaimRefusal::Unavailable);
  }
  ++next_;
  return {};
}

fs::path claimsPath(const fs::path& folder) { return folder / "block-claims"; }

Result<void, Problem> ensureClaims(const fs::path& folder) {
  if (auto good = checkFolder(folder, true); !good) return refuse(good.error());
  std::error_code failure;
  if (fs::exists(fs::symlink_status(claimsPath(folder), failure))) return {};
  Creation creation;
  const auto made = makeClaims(folder, creation);
  if (!made && !creation.exists) return refuse(made.error());
  // Behind its last change, which gave it its name.
  if (made && !stampFile(made->get()))
    return refuse(Problem{claimsPath(folder).string() + ": can't be written: " + std::strerror(errno), {}});
  return {};
}

// What an open file says. The problem names it.
static Result<std::unique_ptr<BlockClaims>, Problem> readClaims(const fs::path& path, kj::AutoCloseFd fd,
                                                                size_t bytes) {
  if (bytes > BlockClaims::HEADER_BYTES + BlockClaims::MAX_RECORDS * BlockClaims::RECORD_BYTES)
    return refuse(Problem{path.string() + ": too long", {}});
  const int number = fd.get();
  // Twice: the vault that has it may write just now.
  const bool asItWasLeft = isAsItWasLeft(number) || isAsItWasLeft(number);
  auto claims = BlockClaims::open(diskOf(kj::mv(fd)), placeOfFile(number), bytes);
  if (claims && !asItWasLeft) claims = unfit("changed since the vault wrote it, as when an older copy is put back");
  if (!claims) return refuse(Problem{path.string() + ": " + claims.error().message, claims.error().hint});
  return claims;
}

Result<std::unique_ptr<BlockClaims>, ClaimsProblem> openClaims(const fs::path& folder, const FileOwners& owners) {
  const fs::path path = claimsPath(folder);
  const auto failed = [&](const std::string& what) {
    return refuse(ClaimsProblem{false, {path.string() + ": " + what + ": " + std::strerror(errno), {}}});
  };
  bool missing = false;
  auto fd = openPrivate(path, O_RDWR, owners, &missing);
  if (!fd && missing) {
    Creation creation;
    fd = makeClaims(folder, creation);
    if (fd && !stampFile(fd->get())) return failed("can't be written");
  }
  if (!fd) return refuse(ClaimsProblem{false, fd.error()});
  if (!lockFile(fd->get())) {
    if (errno != EAGAIN && errno != EACCES) return failed("can't lock");
    return refuse(ClaimsProblem{true,
                                {path.string() + " is in use: another vaultd runs with these keys",
                                 "stop it first, or give this one keys of its own"}});
  }
  struct stat status;
  if (::fstat(fd->get(), &status) != 0) return failed("can't examine");
  const auto bytes = static_cast<size_t>(status.st_size);
  const int number = fd->get();
  auto claims = readClaims(path, kj::mv(*fd), bytes);
  if (!claims) return refuse(ClaimsProblem{false, claims.error()});
  // Room for those that come before the next start, as long as there is room on the disk.
  const size_t wanted =
      BlockClaims::HEADER_BYTES +
      std::min((*claims)->size() + BlockClaims::SPARE_RECORDS, BlockClaims::MAX_RECORDS) * BlockClaims::RECORD_BYTES;
  if (bytes < wanted) {
    if (!allocateFile(number, wanted) || ::ftruncate(number, static_cast<off_t>(wanted)) != 0 || ::fsync(number) != 0)
      return failed("no room for further claims");
    (*claims)->hasRoomFor((wanted - BlockClaims::HEADER_BYTES) / BlockClaims::RECORD_BYTES);
  }
  if (!stampFile(number)) return failed("can't be written");
  return kj::mv(*claims);
}

Result<std::unique_ptr<BlockClaims>, Problem> inspectClaims(const fs::path& folder, const FileOwners& owners) {
  const fs::path path = claimsPath(folder);
  bool missing = false;
  auto fd = openPrivate(path, O_RDONLY, owners, &missing);
  if (!fd && missing) return BlockClaims::unusable("missing");
  if (!fd) return refuse(fd.error());
  struct stat status;
  if (::fstat(fd->get(), &status) != 0)
    return refuse(Problem{path.string() + ": can't examine: " + std::strerror(errno), {}});
  return readClaims(path, kj::mv(*fd), static_cast<size_t>(status.st_size));
}

}  // namespace sallyport::vaultd
