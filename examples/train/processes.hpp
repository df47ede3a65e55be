// The processes of a run: those that mpirun has started, or this one alone.
#pragma once

#include <memory>

#include <tandem/core/ranks.hpp>

namespace training {

namespace td = tandem;

/// The ranks of which this process is one, nullptr where mpirun has not started it. Throws Error where this build has no MPI and several were started.
std::unique_ptr<td::Ranks> join_ranks();

/// After how many seconds of silence a rank is given up.
void give_up_after(td::Ranks& ranks, double silence);

/// Ends all of them.
[[noreturn]] void end_ranks(td::Ranks& ranks, int code);

}  // namespace training
