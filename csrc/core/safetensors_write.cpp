#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>

#include "core/json_text.h"
#include "core/safetensors_header.h"
#include "core/sha256.h"

namespace rnncore {
namespace {

// A file that is written beside its path and takes its place only when all of it is on disk.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path) : path_(resolve(path)) {
    struct stat old;
    const bool replaces = stat(path_.c_str(), &old) == 0;
    if (replaces && S_ISDIR(old.st_mode)) throw FileError(EISDIR, path_);
    if (replaces && !S_ISREG(old.st_mode)) throw FileError(EINVAL, path_);
    static std::atomic<unsigned> count{0};
    const size_t slash = path_.rfind('/') + 1;
    do {
      temporary_ = path_.substr(0, slash) + ".rnncore-" + std::to_string(getpid()) + "-" +
                   std::to_string(count++) + ".tmp";
      file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (file_ < 0 && errno == EEXIST);
    if (file_ < 0) throw FileError(errno, path_);
    if (replaces && fchmod(file_, old.st_mode & 07777) != 0) abandon();
  }

  ~AtomicFile() {
    if (file_ >= 0) close(file_);
    if (!temporary_.empty()) unlink(temporary_.c_str());
  }

  void write(const void* data, uint64_t size) {
    const char* at = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t n = ::write(file_, at, std::min<uint64_t>(size, 1 << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw FileError(errno, path_);
      at += n;
      size -= static_cast<uint64_t>(n);
    }
  }

  void commit() {
    if (fsync(file_) != 0) throw FileError(errno, path_);
    const int file = file_;
    file_ = -1;
    if (close(file) != 0) throw FileError(errno, path_);
    if (rename(temporary_.c_str(), path_.c_str()) != 0) throw FileError(errno, path_);
    temporary_.clear();
    sync_folder();
  }

 private:
  static std::string resolve(const std::string& path) {
    char* real = realpath(path.c_str(), nullptr);
    if (real == nullptr) return path;
    const std::string found = real;
    free(real);
    return found;
  }

  [[noreturn]] void abandon() {
    const int code = errno;
    close(file_);
    unlink(temporary_.c_str());
    throw FileError(code, path_);
  }

  // The rename itself must survive a power loss. Some file systems cannot do this; the data are
  // safe there by their own rules.
  void sync_folder() const {
    const size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    const int handle = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (handle < 0) return;
    fsync(handle);
    close(handle);
  }

  std::string path_;
  std::string temporary_;
  int file_ = -1;
};

void check_names(const std::vector<TensorData>& tensors, const Metadata& metadata) {
  for (const TensorData& tensor : tensors) {
    if (tensor.name == "__metadata__" || !is_utf8(tensor.name)) {
      throw std::invalid_argument("a tensor cannot have the name " + quoted(tensor.name));
    }
  }
  for (const auto& [key, value] : metadata) {
    if (!is_utf8(key) || !is_utf8(value)) {
      throw std::invalid_argument("metadata: expected valid UTF-8");
    }
  }
}

// The largest elements first, so that every tensor is aligned to its own size; then by name.
bool comes_first(const TensorData& a, const TensorData& b) {
  const uint64_t size_a = safetensors_itemsize(a.dtype), size_b = safetensors_itemsize(b.dtype);
  return size_a != size_b ? size_a > size_b : a.name < b.name;
}

std::vector<TensorInfo> lay_out(const std::vector<TensorData>& tensors) {
  std::vector<TensorInfo> infos;
  uint64_t at = 0;
  for (const TensorData& tensor : tensors) {
    uint64_t bytes = 0;
    if (!tensor_bytes(tensor.shape, tensor.dtype, &bytes)) {
      throw std::invalid_argument("tensor " + quoted(tensor.name) + ": bad shape or dtype");
    }
    infos.push_back({tensor.name, tensor.dtype, tensor.shape, at, at + bytes});
    if (infos.size() > 1 && infos[infos.size() - 2].name == tensor.name) {
      throw std::invalid_argument("the name " + quoted(tensor.name) + " occurs twice");
    }
    at += bytes;
  }
  return infos;
}

std::string length_and_header(const std::vector<TensorInfo>& infos, const Metadata& metadata) {
  const std::string header = format_header(infos, metadata);
  if (header.size() > kMaxHeader) {
    throw std::invalid_argument("the header would have " + std::to_string(header.size()) +
                                " bytes, at most " + std::to_string(kMaxHeader) + " are allowed");
  }
  std::string prefix(8, '\0');
  for (int i = 0; i < 8; ++i) {
    prefix[static_cast<size_t>(i)] = static_cast<char>(header.size() >> (8 * i));
  }
  return prefix + header;
}

}  // namespace

void write_safetensors(const std::string& path, std::vector<TensorData> tensors,
                       Metadata metadata) {
  check_names(tensors, metadata);
  std::sort(tensors.begin(), tensors.end(), comes_first);
  const std::vector<TensorInfo> infos = lay_out(tensors);
  metadata[kSafetensorsFormatKey] = "1";
  metadata[kSafetensorsDigestKey] = std::string(kDigestSize, '0');

  std::string prefix = length_and_header(infos, metadata);
  Sha256 hash;
  hash.add(prefix.data(), prefix.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    hash.add(tensors[i].data, infos[i].end - infos[i].begin);
  }
  metadata[kSafetensorsDigestKey] = hash.finish();
  prefix = length_and_header(infos, metadata);

  AtomicFile file(path);
  file.write(prefix.data(), prefix.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    file.write(tensors[i].data, infos[i].end - infos[i].begin);
  }
  file.commit();
}

}  // namespace rnncore
