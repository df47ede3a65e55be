// The processes of a run, in a build with MPI.
#include <tandem/train/mpi.hpp>

#include "processes.hpp"

namespace training {

std::unique_ptr<td::Ranks> join_ranks() {
    if (!td::MpiRanks::is_launched()) return nullptr;
    return std::make_unique<td::MpiRanks>();
}

void give_up_after(td::Ranks& ranks, double silence) { static_cast<td::MpiRanks&>(ranks).give_up_after(silence); }

void end_ranks(td::Ranks& ranks, int code) { static_cast<td::MpiRanks&>(ranks).abort(code); }

}  // namespace training
