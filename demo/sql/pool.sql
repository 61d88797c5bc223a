-- Helpers for the large tables, dropped when those are filled. The setting fill.scale is set before.
CREATE SCHEMA fill;

CREATE FUNCTION fill.n(rows int) RETURNS int LANGUAGE sql STABLE
    AS $$ SELECT greatest(20, floor(rows * current_setting('fill.scale')::numeric))::int $$;

-- Sentences to be joined by a hash of the row number: text that compresses as text does, at the speed of a join.
CREATE UNLOGGED TABLE fill.pool AS
    SELECT i AS key, string_agg(words[1 + floor(random() * cardinality(words))::int], ' ') AS s
    FROM generate_series(0, 4095) i, generate_series(1, 9 + i % 8), string_to_array(
        'order customer invoice parcel delivery payment address street warehouse counter ribbon lantern copper window '
        'Garten Straße Lieferung Rechnung für über schnell langsam bitte morgen gestern Freitag élève façade naïve '
        'señor mañana niño przesyłka zamówienie ulica zapłata заказ клиент улица поезд 注文 住所 the and of to a in '
        'that is was for on with as at by an be this from or had not but what all were when we there can said which do '
        'how if will each about many then them write would like these long make thing see him two has look more day '
        'could go come did number sound no most people over know water than call first who may down side been now find '
        'any new work part take get place made live where after back little only round man year came show every good '
        'me give our under name very through just form sentence great think say help low line differ turn cause much '
        'mean before move right boy old too', ' ') AS x (words)
    GROUP BY i;
ALTER TABLE fill.pool ADD PRIMARY KEY (key);
ANALYZE fill.pool;
