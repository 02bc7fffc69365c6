import { groups } from "./groups/mutants.js";
import { testSimulation } from "./test-simulation.js";

testSimulation(groups);
