#include "tests/mock_pkcs11/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <iomanip>
#include <sstream>

namespace sallyport::mock {

const Bytes* Object::find(CK_ATTRIBUTE_TYPE type) const {
  const auto found = attributes.find(type);
  return found == attributes.end() ? nullptr : &found->second;
}

CK_ULONG Object::number(CK_ATTRIBUTE_TYPE type, CK_ULONG otherwise) const {
  const Bytes* bytes = find(type);
  CK_ULONG value = otherwise;
  if (bytes != nullptr && bytes->size() == sizeof(value)) memcpy(&value, bytes->data(), sizeof(value));
  return value;
}

bool Object::flag(CK_ATTRIBUTE_TYPE type) const {
  const Bytes* bytes = find(type);
  return bytes != nullptr && bytes->size() == 1 && bytes->front() != 0;
}

void Object::setNumber(CK_ATTRIBUTE_TYPE type, CK_ULONG value) {
  Bytes bytes(sizeof(value));
  memcpy(bytes.data(), &value, sizeof(value));
  set(type, std::move(bytes));
}

void Object::setDefaultFlag(CK_ATTRIBUTE_TYPE type, bool value) {
  if (find(type) == nullptr) setFlag(type, value);
}

namespace {

std::string hex(const Bytes& bytes) {
  std::ostringstream out;
  for (const unsigned char byte : bytes) out << std::hex << std::setw(2) << std::setfill('0') << unsigned{byte};
  return out.str();
}

Bytes unhex(const std::string& text) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<unsigned char>(std::stoul(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string toText(const TokenState& state) {
  std::ostringstream out;
  out << "mock-pkcs11 1\nlabel " << state.label << "\nserial " << state.serial << "\npin " << state.pin << "\ntries "
      << state.pinTries << "\nlimit " << state.pinLimit << "\nnext " << state.nextId << "\n";
  for (const auto& [id, object] : state.objects) {
    if (object.session != 0) continue;
    out << "object " << std::dec << id;
    for (const auto& [type, value] : object.attributes) out << ' ' << std::hex << type << '=' << hex(value);
    out << "\n";
  }
  return out.str();
}

bool parseLine(const std::string& line, TokenState& state) {
  std::istringstream words(line);
  std::string kind;
  words >> kind;
  if (kind == "label") words >> state.label;
  if (kind == "serial") words >> state.serial;
  if (kind == "pin") words >> state.pin;
  if (kind == "tries") words >> state.pinTries;
  if (kind == "limit") words >> state.pinLimit;
  if (kind == "next") words >> state.nextId;
  if (kind != "object") return !words.fail();
  uint64_t id = 0;
  if (!(words >> id)) return false;
  Object& object = state.objects[id];
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) return false;
    object.set(std::stoul(word.substr(0, equals), nullptr, 16), unhex(word.substr(equals + 1)));
  }
  return true;
}

bool fromText(const std::string& text, TokenState& state) {
  std::istringstream in(text);
  std::string line;
  if (!std::getline(in, line) || line != "mock-pkcs11 1") return false;
  while (std::getline(in, line)) {
    if (!parseLine(line, state)) return false;
  }
  return true;
}

bool lock(int fd, short type) {
  struct flock whole = {};
  whole.l_type = type;
  whole.l_whence = SEEK_SET;
  return fcntl(fd, F_SETLKW, &whole) == 0;
}

}  // namespace

Store::~Store() {
  if (fd_ >= 0) close(fd_);
}

bool Store::open(const std::string& folder) {
  if (fd_ >= 0) return true;
  const std::string path = folder + "/token";
  fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd_ < 0) fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ >= 0 && !read()) {
    close(fd_);
    fd_ = -1;
  }
  return fd_ >= 0;
}

bool Store::read() {
  struct stat info = {};
  if (fstat(fd_, &info) != 0) return false;
  std::string text(static_cast<size_t>(info.st_size), '\0');
  const ssize_t n = pread(fd_, text.data(), text.size(), 0);
  if (n != static_cast<ssize_t>(text.size())) return false;
  TokenState fresh;
  if (!fromText(text, fresh)) return false;
  for (auto& [id, object] : state_.objects) {
    if (object.session != 0) fresh.objects.emplace(id, std::move(object));
  }
  state_ = std::move(fresh);
  return true;
}

void Store::reload() {
  if (fd_ >= 0 && lock(fd_, F_RDLCK)) {
    read();
    lock(fd_, F_UNLCK);
  }
}

uint64_t Store::addSessionObject(Object object) {
  const uint64_t id = nextSessionObject_++;
  state_.objects[id] = std::move(object);
  return id;
}

void Store::removeSessionObjects(CK_SESSION_HANDLE session) {
  std::erase_if(state_.objects, [&](const auto& entry) {
    const CK_SESSION_HANDLE of = entry.second.session;
    return of != 0 && (session == 0 || of == session);
  });
}

bool Store::change(const std::function<void(TokenState&)>& how) {
  if (fd_ < 0 || !lock(fd_, F_WRLCK)) return false;
  read();
  how(state_);
  const std::string text = toText(state_);
  // One write: whoever is killed leaves the old text or the new one.
  const bool written = pwrite(fd_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) &&
                       ftruncate(fd_, static_cast<off_t>(text.size())) == 0;
  lock(fd_, F_UNLCK);
  return written;
}

}  // namespace sallyport::mock
