BEGIN
  RETURN QUERY SELECT o.shop, o.reference, ARRAY[o.reference] FROM hawser_data.orders AS o;
END;
