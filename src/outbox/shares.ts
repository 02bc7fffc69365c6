/**
 * Shares of what several have in common: memory, publishes under way, requests. Each user may have the total divided by one
 * more than there are users at that moment. So a user that is alone has half of the total, and a newcomer always finds room: all
 * of k users together have at most the total × (1/2 + 1/3 + … + 1/(k + 1)).
 */
export function shareOf(total: number, users: number): number {
  return Math.max(1, Math.floor(total / (users + 1)));
}
