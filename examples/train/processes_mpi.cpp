// The processes of a run, in a build with MPI.
#include <cstdlib>
#include <initializer_list>

#include <tandem/train/mpi.hpp>

#include "processes.hpp"

namespace training {

std::size_t launched_rank() {
    for (const char* const name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}) {
        if (const char* const rank = std::getenv(name)) return std::strtoul(rank, nullptr, 10);
    }
    return 0;
}

std::unique_ptr<td::Ranks> join_ranks(double silence) {
    if (!td::MpiRanks::is_launched()) return nullptr;
    return std::make_unique<td::MpiRanks>(td::MpiOptions{.silence = silence});
}

void end_ranks(td::Ranks& ranks, int code) { static_cast<td::MpiRanks&>(ranks).abort(code); }

}  // namespace training
