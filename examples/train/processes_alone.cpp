// The processes of a run, in a build without MPI: one.
#include <cstdlib>
#include <initializer_list>
#include <string>

#include <tandem/core/error.hpp>

#include "processes.hpp"

namespace training {

std::unique_ptr<td::Ranks> join_ranks() {
    for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
        const char* const size = std::getenv(name);
        if (size != nullptr && std::string(size) != "1")
            throw td::Error("mpirun", "a train that is built where MPI is (Debian: libopenmpi-dev), which " + std::string(size) + " processes need", "one without");
    }
    return nullptr;
}

void give_up_after(td::Ranks&, double) {}

void end_ranks(td::Ranks&, int code) { std::exit(code); }

}  // namespace training
