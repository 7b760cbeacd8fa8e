#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/safetensors_header.h"
#include "core/sha256.h"

namespace rnncore {

SafetensorsReader::SafetensorsReader(const std::string& path) : path_(path) {
  // Not blocking, so that a pipe is refused instead of waited for.
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0) throw FileError(errno, path);
  try {
    read_header();
  } catch (...) {
    close(file_);
    throw;
  }
}

SafetensorsReader::~SafetensorsReader() { close(file_); }

void SafetensorsReader::fail(const std::string& what) const {
  throw FormatError(path_ + ": " + what);
}

void SafetensorsReader::read_exactly(void* destination, uint64_t size) {
  char* at = static_cast<char*>(destination);
  while (size > 0) {
    const ssize_t n = ::read(file_, at, std::min<uint64_t>(size, 1 << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw FileError(errno, path_);
    if (n == 0) fail("it ended " + std::to_string(size) + " bytes early");
    at += n;
    size -= static_cast<uint64_t>(n);
  }
}

void SafetensorsReader::read_header() {
  struct stat status;
  if (fstat(file_, &status) != 0) throw FileError(errno, path_);
  if (S_ISDIR(status.st_mode)) throw FileError(EISDIR, path_);
  if (!S_ISREG(status.st_mode)) throw FileError(EINVAL, path_);
  const uint64_t file_size = static_cast<uint64_t>(status.st_size);
  if (file_size < 10) fail("it has " + std::to_string(file_size) + " bytes, no header fits");
  unsigned char length[8];
  read_exactly(length, 8);
  uint64_t size = 0;
  for (int i = 7; i >= 0; --i) size = size << 8 | length[i];
  if (size > kMaxHeader || size > file_size - 8) {
    fail("a header of " + std::to_string(size) + " bytes in a file of " +
         std::to_string(file_size) + ", at most " + std::to_string(kMaxHeader) + " are allowed");
  }
  std::string text(size, '\0');
  read_exactly(&text[0], size);
  SafetensorsHeader header;
  try {
    header = parse_header(text, file_size - 8 - size);
  } catch (const FormatError& error) {
    fail(error.what());
  }
  if (header.digest_at != 0) {
    digest_ = text.substr(header.digest_at, kDigestSize);
    text.replace(header.digest_at, kDigestSize, kDigestSize, '0');
    prefix_.assign(reinterpret_cast<char*>(length), 8);
    prefix_ += text;
  }
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
}

void SafetensorsReader::read(const std::vector<void*>& destinations) {
  Sha256 hash;
  hash.add(prefix_.data(), prefix_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const uint64_t size = tensors_[i].end - tensors_[i].begin;
    read_exactly(destinations[i], size);
    if (!digest_.empty()) hash.add(destinations[i], size);
    if (tensors_[i].dtype == "BOOL") {
      const unsigned char* bytes = static_cast<const unsigned char*>(destinations[i]);
      if (std::any_of(bytes, bytes + size, [](unsigned char b) { return b > 1; })) {
        fail("tensor \"" + tensors_[i].name + "\": a BOOL that is neither 0 nor 1");
      }
    }
  }
  char more;
  if (::read(file_, &more, 1) > 0) fail("it grew while it was read");
  if (!digest_.empty() && hash.finish() != digest_)
    fail("it is damaged: its digest does not agree");
}

}  // namespace rnncore
