import { LeaseWorld } from "./test/simulator/leases/world.js";
for (const [name, mutant] of Object.entries({ keepsLane: { keepsLane: true }, looks: { store: { looksBeforeLocks: true } } })) {
  const found = [];
  for (let seed = 1; seed <= 15000 && found.length < 4; seed++) { try { new LeaseWorld(seed, mutant).run(); } catch (e) { found.push([seed, e.message]); } }
  console.log(name, found);
}
