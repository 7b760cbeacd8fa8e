// The tokens of JSON that a safetensors header needs: strings and non-negative integers.
//
// There is no recursion and no general value: the format's depth is fixed, so whoever parses asks
// for the token that must come next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace rnncore {

class JsonText {
 public:
  explicit JsonText(const std::string& text) : text_(text) {}

  void expect(char token);  // skips white space before it; FormatError when another one comes
  bool accept(char token);  // the same, but says whether it was there
  std::string string();     // a string with its escapes resolved
  uint64_t integer();       // below 2^63, no sign, no leading zero, no fraction
  void expect_end();        // nothing but white space follows
  size_t position() const { return at_; }

  [[noreturn]] void fail(const std::string& what) const;

 private:
  void skip_space();
  void escape(std::string* out);
  uint32_t four_digits();

  const std::string& text_;
  size_t at_ = 0;
};

// A string as JSON, quotes included.
std::string quoted(const std::string& text);

// Whether bytes are well-formed UTF-8 (RFC 3629: no overlong form, no surrogate).
bool is_utf8(const std::string& text);

}  // namespace rnncore
