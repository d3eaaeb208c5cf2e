const ITEMS_MAX = 100;
const QUANTITY_MAX = 1000;

/** Returns what is wrong with an order as a customer sends it; nothing when it can be taken. */
export function validate(order) {
  if (typeof order !== 'object' || order === null || Array.isArray(order)) return ['an order is an object'];

  const problems = [];
  if (typeof order.customer !== 'string' || !/^[^\s@]+@[^\s@]+$/.test(order.customer)) {
    problems.push('customer: an e-mail address is needed');
  }
  if (!Array.isArray(order.items) || order.items.length < 1 || order.items.length > ITEMS_MAX) {
    problems.push(`items: between 1 and ${ITEMS_MAX} are needed`);
    return problems;
  }
  order.items.forEach((item, index) => {
    if (typeof item?.sku !== 'string' || !/^[a-z0-9-]{1,64}$/.test(item.sku)) {
      problems.push(`items[${index}].sku: a name such as tea-pot is needed`);
    }
    if (!Number.isInteger(item?.quantity) || item.quantity < 1 || item.quantity > QUANTITY_MAX) {
      problems.push(`items[${index}].quantity: a whole number between 1 and ${QUANTITY_MAX} is needed`);
    }
  });
  return problems;
}
