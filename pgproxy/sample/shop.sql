-- The sample database: a small online shop. Runs once, as shop_app, inside one transaction.
-- Deterministic: random() is seeded, and no time is "now". Addresses end in .example, telephone numbers are from
-- ranges kept for fiction, cards are last digits only.
SELECT setseed(0.42);

CREATE TABLE customers (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    first_name  text NOT NULL,
    last_name   text NOT NULL,
    email       text NOT NULL UNIQUE,
    phone       text NOT NULL,
    city        text NOT NULL,
    country     char(2) NOT NULL,
    newsletter  boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL
);
COMMENT ON TABLE customers IS 'People who have an account. E-mail and phone are personal data.';

CREATE TABLE products (
    id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku       text NOT NULL UNIQUE,
    name      text NOT NULL,
    category  text NOT NULL,
    price     numeric(10, 2) NOT NULL CHECK (price > 0),
    stock     integer NOT NULL CHECK (stock >= 0)
);

CREATE TABLE orders (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id  integer NOT NULL REFERENCES customers,
    status       text NOT NULL CHECK (status IN ('new', 'paid', 'shipped', 'delivered', 'cancelled')),
    ordered_at   timestamptz NOT NULL
);
CREATE INDEX orders_customer_id ON orders (customer_id);
CREATE INDEX orders_ordered_at ON orders (ordered_at);

CREATE TABLE order_items (
    order_id    integer NOT NULL REFERENCES orders ON DELETE CASCADE,
    line        smallint NOT NULL,
    product_id  integer NOT NULL REFERENCES products,
    quantity    smallint NOT NULL CHECK (quantity > 0),
    unit_price  numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line)
);
CREATE INDEX order_items_product_id ON order_items (product_id);

CREATE TABLE payments (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id     integer NOT NULL UNIQUE REFERENCES orders ON DELETE CASCADE,
    method       text NOT NULL CHECK (method IN ('card', 'transfer', 'invoice')),
    card_last4   char(4) CHECK ((card_last4 IS NOT NULL) = (method = 'card')),
    amount       numeric(10, 2) NOT NULL,
    paid_at      timestamptz NOT NULL
);
COMMENT ON COLUMN payments.card_last4 IS 'The last four digits; the full number never reaches this database.';

CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    actor   text NOT NULL,
    action  text NOT NULL,
    detail  jsonb NOT NULL
);
COMMENT ON TABLE audit_log IS 'What the shop''s own staff did.';

INSERT INTO products (sku, name, category, price, stock)
SELECT format('%s-%s', upper(left(category, 3)), lpad((100 + row_number() OVER ())::text, 4, '0')),
       name, category, price, stock
FROM (VALUES
    ('Pour-over kettle', 'kitchen', 64.90, 41), ('Chef''s knife 20 cm', 'kitchen', 89.00, 27),
    ('Cast-iron pan', 'kitchen', 54.50, 63), ('Bread tin', 'kitchen', 17.95, 120),
    ('Digital scale', 'kitchen', 29.90, 88), ('Salt mill', 'kitchen', 34.00, 52),
    ('Linen tablecloth', 'home', 72.00, 19), ('Wool blanket', 'home', 119.00, 34),
    ('Desk lamp', 'home', 83.50, 45), ('Wall clock', 'home', 49.90, 23),
    ('Candle, beeswax', 'home', 12.50, 310), ('Picture frame A4', 'home', 21.00, 140),
    ('Notebook, dotted', 'paper', 14.90, 420), ('Fountain pen', 'paper', 39.00, 96),
    ('Ink, blue-black', 'paper', 11.50, 205), ('Letter paper', 'paper', 18.00, 77),
    ('Hiking socks', 'outdoor', 19.90, 260), ('Water bottle 0.75 l', 'outdoor', 27.50, 180),
    ('Head torch', 'outdoor', 44.90, 71), ('Rucksack 28 l', 'outdoor', 134.00, 22),
    ('Rain jacket', 'outdoor', 189.00, 31), ('Camping stove', 'outdoor', 76.00, 18),
    ('Gift card 25', 'gift', 25.00, 9999), ('Gift card 50', 'gift', 50.00, 9999)
) AS p (name, category, price, stock);

INSERT INTO customers (first_name, last_name, email, phone, city, country, newsletter, created_at)
SELECT first_name, last_name,
       lower(format('%s.%s%s@%s.example', translate(first_name, 'éíöüø', 'eiouo'), translate(last_name, 'éíöüø', 'eiouo'),
                    n, (ARRAY['mail', 'post', 'inbox', 'letters'])[1 + n % 4])),
       format('+44 %s 496 0%s', (ARRAY['113', '114', '115', '116', '117', '118'])[1 + n % 6], lpad((n * 7 % 1000)::text, 3, '0')),
       city, country, random() < 0.35,
       timestamptz '2023-01-02 08:00+00' + n * interval '1 day 7 hours' + random() * interval '20 hours'
FROM (
    SELECT n,
           (ARRAY['Anna', 'Ben', 'Chiara', 'David', 'Elif', 'Fatima', 'George', 'Hannah', 'Ivan', 'Julia', 'Kenji',
                  'Lucía', 'Mohammed', 'Nora', 'Oskar', 'Priya', 'Quentin', 'Rosa', 'Søren', 'Tara', 'Uma', 'Viktor',
                  'Wei', 'Yara', 'Zoé'])[1 + n * 11 % 25] AS first_name,
           (ARRAY['Andersen', 'Bauer', 'Costa', 'Dubois', 'Evans', 'Fischer', 'García', 'Haddad', 'Ito', 'Jensen',
                  'Kowalski', 'Lopez', 'Müller', 'Novak', 'Okafor', 'Patel', 'Quinn', 'Rossi', 'Schröder', 'Tanaka',
                  'Usman', 'Varga', 'Williams', 'Yilmaz'])[1 + n * 7 % 24] AS last_name,
           (ARRAY['Leeds', 'Lyon', 'Porto', 'Graz', 'Aarhus', 'Kraków', 'Turin', 'Gent', 'Cork', 'Bergen'])[1 + n * 3 % 10] AS city,
           (ARRAY['GB', 'FR', 'PT', 'AT', 'DK', 'PL', 'IT', 'BE', 'IE', 'NO'])[1 + n * 3 % 10] AS country
    FROM generate_series(1, 500) AS n
) AS people
ORDER BY n;

INSERT INTO orders (customer_id, status, ordered_at)
SELECT 1 + floor(500 * power(random(), 1.7))::integer,
       (ARRAY['new', 'paid', 'shipped', 'shipped', 'delivered', 'delivered', 'delivered', 'delivered', 'delivered',
              'cancelled'])[1 + floor(10 * random())::integer],
       timestamptz '2024-11-01 09:00+00' + n * interval '5 hours 13 minutes' + random() * interval '3 hours'
FROM generate_series(1, 1500) AS n;

INSERT INTO order_items (order_id, line, product_id, quantity, unit_price)
SELECT o.id, l.line, p.id, 1 + floor(3 * random() * random())::smallint, p.price
FROM orders AS o
CROSS JOIN LATERAL generate_series(1, 1 + (o.id * 13 % 4)) AS l (line)
JOIN products AS p ON p.id = 1 + (o.id * 17 + l.line * 5) % 24
ORDER BY o.id, l.line;

INSERT INTO payments (order_id, method, card_last4, amount, paid_at)
SELECT o.id, m.method, CASE WHEN m.method = 'card' THEN lpad((o.id * 7919 % 10000)::text, 4, '0') END,
       t.total, o.ordered_at + interval '2 minutes' + o.id % 50 * interval '1 minute'
FROM orders AS o
JOIN (SELECT order_id, sum(quantity * unit_price) AS total FROM order_items GROUP BY order_id) AS t ON t.order_id = o.id
CROSS JOIN LATERAL (SELECT (ARRAY['card', 'card', 'card', 'transfer', 'invoice'])[1 + o.id % 5] AS method) AS m
WHERE o.status IN ('paid', 'shipped', 'delivered')
ORDER BY o.id;

INSERT INTO audit_log (at, actor, action, detail)
SELECT o.ordered_at + interval '1 day', (ARRAY['mia', 'tom', 'warehouse', 'billing'])[1 + o.id % 4],
       CASE o.status WHEN 'cancelled' THEN 'order.cancel' ELSE 'order.ship' END,
       jsonb_build_object('order', o.id, 'status', o.status)
FROM orders AS o
WHERE o.status IN ('shipped', 'cancelled')
ORDER BY o.id;

CREATE VIEW order_totals AS
SELECT o.id, o.customer_id, o.status, o.ordered_at, sum(i.quantity * i.unit_price) AS total
FROM orders AS o JOIN order_items AS i ON i.order_id = o.id
GROUP BY o.id;

CREATE VIEW customer_directory AS
SELECT id, first_name, last_name, city, country FROM customers;
COMMENT ON VIEW customer_directory IS 'Customers without their personal data, for support.';

GRANT SELECT ON products, orders, order_items, order_totals, customer_directory TO shop_readonly;
GRANT SELECT, UPDATE ON orders TO shop_support;
GRANT SELECT ON customer_directory, order_totals, products TO shop_support;
