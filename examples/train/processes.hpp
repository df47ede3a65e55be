// The processes of a run: those that mpirun has started, or this one alone.
#pragma once

#include <cstddef>
#include <memory>

#include <tandem/core/ranks.hpp>

namespace training {

namespace td = tandem;

/// Which of the processes that mpirun has started this one is; 0 if it has not.
std::size_t launched_rank();

/// The ranks of which this process is one, nullptr where mpirun has not started it. Which of them is not heard for so many seconds is given up. Throws
/// Error where this build has no MPI and several were started.
std::unique_ptr<td::Ranks> join_ranks(double silence);

/// Ends all of them.
[[noreturn]] void end_ranks(td::Ranks& ranks, int code);

}  // namespace training
