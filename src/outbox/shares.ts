/**
 * Share of a common resource: memory, publishes in flight, requests. Each of `users` users may have total / (users + 1).
 * A single user has half of the total, and a new user always finds free capacity: k users together
 * use at most total × (1/2 + 1/3 + … + 1/(k + 1)).
 */
export function shareOf(total: number, users: number): number {
  return Math.max(1, Math.floor(total / (users + 1)));
}
