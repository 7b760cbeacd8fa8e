#include "core/team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "core/float_environment.h"
#include "core/lent_threads.h"
#include "core/waiting.h"
#include "rnncore/debug.h"

namespace rnncore {
namespace {

constexpr unsigned kMemberBits = 9;  // of a generation word: how many members its run has
constexpr int kSpins = 2500;  // about 50 microseconds: longer waits mean that a member has no CPU

int usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set)) return 1;
  return CPU_COUNT(&set);
}

}  // namespace

void Run::poll() {
  if (!interrupt.requested) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_poll) return;
  next_poll = now + std::chrono::milliseconds(50);
  ask([&] { return interrupt.requested(interrupt.context); });
}

void Barrier::reset(int members) {
  members_ = members;
  arrived_.store(0, std::memory_order_relaxed);
}

void Run::poll_after_steps() {
  if (!interrupt.requested) {
    passing = 1 << 30;
    return;
  }
  constexpr int kMostPassing = 255;
  const auto now = std::chrono::steady_clock::now();
  const bool short_steps = now - last_step < std::chrono::milliseconds(1);
  passing = short_steps ? std::min(2 * passing + 1, kMostPassing) : 0;
  last_step = now;
  poll();
}

bool Barrier::wait(Run& run) {
  if (members_ == 1) return run.live();
  const int phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst)) wake_all(phase_);
    return run.live();
  }
  for (int i = 0; phase_.load(std::memory_order_acquire) == phase; ++i) {
    if (!run.live()) return false;
    if (i < run.spins) {
      spin(i);
      continue;
    }
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    if (phase_.load(std::memory_order_seq_cst) == phase) sleep_while(phase_, phase);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }
  return run.live();
}

// Workers wait for the generation word to change, run the job if they are among its members, and
// count themselves off. The word holds the number of members, since a worker that is not one may
// look at it while the next run is being set up.
class Team {
 public:
  std::atomic_flag taken = ATOMIC_FLAG_INIT;

  int grow(int workers) {
    while (workers_ < workers && workers_ < kMaxThreads - 1) {
      try {
        std::thread worker(&Team::work, this, workers_ + 1, generation_.load());
        handles_[workers_] = worker.native_handle();
        worker.detach();
      } catch (const std::exception&) {
        break;  // the machine allows no more threads, or has no memory: run on those there are
      }
      ++workers_;
    }
    return workers_;
  }

  int workers() const { return workers_; }

  std::exception_ptr run(int members, Run& run, void (*job)(void*, Run&, int), void* context,
                         const OpenMP* lent) {
    run_ = &run;
    job_ = job;
    context_ = context;
    error_ = nullptr;
    has_error_.clear();
    if (lent && run_on_lent_threads(*lent, members, &Team::take_lent_part, this)) return error_;
    if (grow(members - 1) < members - 1) {
      throw std::runtime_error("threads: OpenMP gave fewer than asked for, and none could be made");
    }
    run_own(members);
    return error_;
  }

 private:
  void run_own(int members) {
    const Run& run = *run_;
    remaining_.store(members - 1, std::memory_order_relaxed);
    const unsigned next = (static_cast<unsigned>(generation_.load()) >> kMemberBits) + 1;
    generation_.store(static_cast<int>(next << kMemberBits | static_cast<unsigned>(members)),
                      std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst)) {
      keep_off_this_cpu();
      wake_all(generation_);
    }
    take_part(0);
    for (int i = 0;; ++i) {
      const int left = remaining_.load(std::memory_order_acquire);
      if (left == 0) break;
      if (i < run.spins) {
        spin(i);
      } else {
        sleep_while(remaining_, left);
      }
    }
  }

  static void take_lent_part(void* team, int member) {
    const FloatEnvironment environment;
    static_cast<Team*>(team)->take_part(member);
  }

  // A worker that is woken on the CPU of the caller, who does not sleep, would share it with him
  // for some milliseconds, at ten times the time a step: the scheduler may not put it there. Once
  // it runs it may go anywhere again.
  void keep_off_this_cpu() {
    const int here = sched_getcpu();
    const std::lock_guard<std::mutex> lock(affinity_mutex_);
    if (here < 0 || sched_getaffinity(0, sizeof allowed_, &allowed_)) return;
    if (CPU_COUNT(&allowed_) < 2) return;
    cpu_set_t elsewhere = allowed_;
    CPU_CLR(here, &elsewhere);
    for (int i = 0; i < workers_; ++i) {
      pthread_setaffinity_np(handles_[i], sizeof elsewhere, &elsewhere);
      confined_[i].store(true, std::memory_order_relaxed);
    }
  }

  void free_to_move(int member) {
    if (!confined_[member - 1].load(std::memory_order_relaxed)) return;
    const std::lock_guard<std::mutex> lock(affinity_mutex_);
    confined_[member - 1].store(false, std::memory_order_relaxed);
    pthread_setaffinity_np(pthread_self(), sizeof allowed_, &allowed_);
  }

  void take_part(int member) {
    try {
      job_(context_, *run_, member);
    } catch (...) {
      if (!has_error_.test_and_set()) error_ = std::current_exception();
      run_->cancelled.store(1);
    }
  }

  void work(int member, int seen) {
    const FloatEnvironment environment;
    for (;;) {
      for (int i = 0; generation_.load(std::memory_order_acquire) == seen; ++i) {
        if (i < idle_spins_.load(std::memory_order_relaxed)) {
          pause_cpu();
          continue;
        }
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        if (generation_.load(std::memory_order_seq_cst) == seen) sleep_on(generation_, seen);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
      seen = generation_.load(std::memory_order_acquire);
      const int members = seen & ((1 << kMemberBits) - 1);
      free_to_move(member);
      if (member >= members) continue;
      idle_spins_.store(run_->spins, std::memory_order_relaxed);
      take_part(member);
      if (remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1) wake_all(remaining_);
    }
  }

  int workers_ = 0;
  pthread_t handles_[kMaxThreads] = {};
  std::mutex affinity_mutex_;  // of what follows
  cpu_set_t allowed_ = {};     // to the caller
  std::atomic<bool> confined_[kMaxThreads] = {};
  Run* run_ = nullptr;
  void (*job_)(void*, Run&, int) = nullptr;
  void* context_ = nullptr;
  std::exception_ptr error_;
  std::atomic_flag has_error_ = ATOMIC_FLAG_INIT;
  std::atomic<int> idle_spins_{0};
  alignas(64) std::atomic<int> generation_{0};
  std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<int> remaining_{0};
};

namespace {

// Never destroyed: workers wait on it until the process ends. After a fork its threads are gone in
// the child, whose handler only says so; the old team's memory is left behind.
std::atomic<Team*> current{nullptr};

void forget_team() { current.store(nullptr); }

Team& team() {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_team);
  (void)registered;
  Team* existing = current.load(std::memory_order_acquire);
  if (existing) return *existing;
  auto fresh = std::make_unique<Team>();
  if (current.compare_exchange_strong(existing, fresh.get())) return *fresh.release();
  return *existing;
}

}  // namespace

int debug::team_threads() {
  const Team* existing = current.load();
  return existing ? existing->workers() : 0;
}

Lease::Lease(int wanted) {
  if (wanted <= 1) return;
  Team& shared = team();
  if (shared.taken.test_and_set(std::memory_order_acquire)) return;
  wanted = std::min(wanted, kMaxThreads);
  lent_ = lent_threads();
  const int workers = lent_ ? wanted - 1 : shared.grow(wanted - 1);
  if (workers == 0) {
    shared.taken.clear(std::memory_order_release);
    return;
  }
  team_ = &shared;
  size_ = std::min(wanted, workers + 1);
}

Lease::~Lease() {
  if (team_) team_->taken.clear(std::memory_order_release);
}

bool Lease::run(int members, const Interrupt& interrupt, void (*job)(void*, Run&, int),
                void* context) {
  Run run;
  run.interrupt = interrupt;
  if (interrupt.requested) {
    run.next_poll = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
  }
  const FloatEnvironment environment;
  run.environment = &environment;
  if (members <= 1 || !team_) {
    job(context, run, 0);
    return run.live();
  }
  run.spins = members <= usable_cpus() ? kSpins : 0;
  const std::exception_ptr error = team_->run(members, run, job, context, lent_);
  if (error) std::rethrow_exception(error);
  return run.live();
}

}  // namespace rnncore
