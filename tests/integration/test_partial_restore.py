# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores of schemas and tables: what belongs to a table comes with it, what cannot come is told, nothing else comes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    CommandError,
    MissingError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import preflight
from demo import compare, dataset
from demo.servers import MotoS3, PostgresServer
from tests.integration.conftest import Servers, Site, databases_of, run_sql

ARCHIVE = 'Customer\'s "Archive"'
ODD = {
    '"Customer\'s ""Archive"""."Select"',
    '"Customer\'s ""Archive"""."tab\tand $dollar$"',
    '"größe_λ_注文"."Ünïcødé 📦"',
}


@pytest.fixture(scope="module")
def shop_site(shop: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("shop"), shop)
    site.backup(databases=["shop"])
    return site


@pytest.fixture(scope="module")
def site(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a set of the demo's main database."""
    site = Site(tmp_path_factory.mktemp("site"), servers.get("filled", 18))
    site.backup(databases=[dataset.ORDERING])
    return site


def state_of(server: PostgresServer, name: str) -> dict[str, Any]:
    return compare.snapshot(server)['database "%s"' % name]


def tables_in(server: PostgresServer, name: str) -> set[str]:
    """Return the tables, views and foreign tables of a database, without what belongs to extensions."""
    found = run_sql(
        server,
        name,
        "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'",
    )
    return {row[0] for row in found}


def about(state: dict[str, Any], tables: set[str]) -> dict[str, Any]:
    """Return what the comparison knows of `tables`: their rows, columns, indexes, rules, rights and comments."""
    sections = ("relations", "columns", "indexes", "constraints", "triggers", "policies", "rules", "tables")
    names = sorted(tables, key=len, reverse=True)
    found: dict[str, Any] = {}
    for section in sections:
        for identity, details in state[section].items():
            definition = str(details.get("definition", ""))
            if section == "indexes":
                mine = any(
                    " ON %s USING" % name in definition or " ON ONLY %s USING" % name in definition for name in names
                )
            elif section in ("relations", "tables"):
                mine = identity in tables
            elif section == "columns":
                mine = any(identity.startswith(name + ".") for name in names)
            else:
                mine = any(identity.endswith(" on " + name) for name in names)
            if mine:
                found.setdefault(section, {})[identity] = details
    return found


def lost(server: PostgresServer, before: dict[str, Any], name: str, tables: set[str]) -> list[str]:
    """Return how `tables` in the database `name` differ from what they were."""
    return compare.differences({"x": about(before, tables)}, {"x": about(state_of(server, name), tables)})


# --- tables -----------------------------------------------------------------------------------------------------------


def test_all_that_belongs_to_a_table_comes_with_it(shop_site: Site, bench: PostgresServer) -> None:
    before = state_of(shop_site.server, "shop")
    result = shop_site.restore(to=bench, databases=("shop",), tables=("shop.sales",))
    assert tables_in(bench, "shop") == {"shop.sales"}
    differences = lost(bench, before, "shop", {"shop.sales"})
    assert [d for d in differences if "sales_good_fkey" not in d] == []
    assert len(differences) == 1
    assert result["databases"][0]["left_out"] == ["the foreign key of shop.sales to shop.goods, which is not restored"]
    assert "the foreign key of shop.sales to shop.goods" in shop_site.warnings
    # The look itself sees something of each kind.
    assert {"relations", "columns", "indexes", "constraints", "triggers", "policies", "tables"} <= set(
        about(before, {"shop.sales"})
    )
    assert run_sql(bench, "shop", "SELECT nextval('shop.sales_no_seq')") == [(501,)]
    assert run_sql(bench, "shop", "SELECT count(*) FROM pg_statistic_ext") == [(1,)]
    assert run_sql(bench, "shop", "SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]
    assert run_sql(bench, "shop", "SELECT to_regclass('shop.tickets')") == [(None,)]


def test_comments_column_rights_and_identity_come_too(shop_site: Site, bench: PostgresServer) -> None:
    shop_site.restore(to=bench, databases=("shop",), tables=("shop.goods",))
    assert run_sql(
        bench, "shop", "SELECT obj_description('shop.goods'::regclass), col_description('shop.goods'::regclass, 3)"
    ) == [("what there is", "in euros")]
    assert run_sql(
        bench,
        "shop",
        "SELECT has_column_privilege('clerk', 'shop.goods', 'name', 'SELECT'), has_column_privilege('clerk', 'shop.goods', 'price', 'SELECT')",
    ) == [(True, False)]
    assert run_sql(bench, "shop", "INSERT INTO shop.goods (name) VALUES ('new') RETURNING id") == [(51,)]
    assert run_sql(
        bench, "shop", "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'shop.goods'::regclass"
    ) == [("chief",)]


def test_both_ends_of_a_foreign_key_bring_it(shop_site: Site, bench: PostgresServer) -> None:
    before = state_of(shop_site.server, "shop")
    both = {"shop.sales", "shop.goods"}
    result = shop_site.restore(to=bench, databases=("shop",), tables=tuple(both), rename={"shop": "two tables"})
    assert result["databases"][0]["left_out"] == []
    assert lost(bench, before, "two tables", both) == []


def test_tables_with_odd_names(site: Site, target: PostgresServer) -> None:
    before = state_of(site.server, dataset.ORDERING)
    site.restore(to=target, databases=(dataset.ORDERING,), tables=tuple(ODD), rename={dataset.ORDERING: "odd"})
    assert tables_in(target, "odd") == ODD
    assert lost(target, before, "odd", ODD) == []
    comment = run_sql(target, "odd", "SELECT description FROM pg_description WHERE description = '日本'")
    assert comment == [("日本",)]


def test_a_partitioned_table_brings_its_partitions(site: Site, target: PostgresServer) -> None:
    before = state_of(site.server, dataset.ORDERING)
    family = {
        "sales.orders",
        "sales.orders_2024",
        'sales."orders 2025"',
        "sales.orders_2025_open",
        "sales.orders_2025_rest",
        "sales.orders_default",
    }
    result = site.restore(to=target, databases=(dataset.ORDERING,), tables=("sales.orders",))
    assert tables_in(target, dataset.ORDERING) == family
    differences = lost(target, before, dataset.ORDERING, family)
    assert [d for d in differences if "customer's key" not in d] == []
    assert any("to sales.customers, which is not restored" in text for text in result["databases"][0]["left_out"])
    assert run_sql(target, dataset.ORDERING, "SELECT count(*) FROM sales.orders")[0][0] == sum(
        before["tables"][name]["rows"] for name in family if name in before["tables"]
    )


def test_one_partition_alone(site: Site, target: PostgresServer) -> None:
    before = state_of(site.server, dataset.ORDERING)
    result = site.restore(to=target, databases=(dataset.ORDERING,), tables=("sales.orders_2024",))
    assert tables_in(target, dataset.ORDERING) == {"sales.orders_2024"}
    rows = run_sql(target, dataset.ORDERING, "SELECT count(*) FROM sales.orders_2024")
    assert rows == [(before["tables"]["sales.orders_2024"]["rows"],)]
    assert "sales.orders_2024 being a part of sales.orders, which is not restored" in " ".join(
        result["databases"][0]["left_out"]
    )
    assert run_sql(
        target, dataset.ORDERING, "SELECT count(*) > 0 FROM pg_index WHERE indrelid = 'sales.orders_2024'::regclass"
    ) == [(True,)]


def test_a_sequence_that_a_default_needs_comes_along_and_what_a_view_needs_is_to_be_named(
    site: Site, target: PostgresServer
) -> None:
    with pytest.raises(CommandError, match="does not exist") as caught:
        site.restore(to=target, databases=(dataset.ORDERING,), tables=("sales.invoked",))
    assert "name that, too" in caught.value.hint
    assert databases_of(target) == {"postgres"}
    site.restore(to=target, databases=(dataset.ORDERING,), tables=("sales.invoices",))
    before = state_of(site.server, dataset.ORDERING)
    assert lost(target, before, dataset.ORDERING, {"sales.invoices"}) == []
    assert run_sql(target, dataset.ORDERING, "SELECT last_value FROM stock.invoice_no") == run_sql(
        site.server, dataset.ORDERING, "SELECT last_value FROM stock.invoice_no"
    )


# --- schemas ----------------------------------------------------------------------------------------------------------


def test_a_schema_and_nothing_else(shop_site: Site, bench: PostgresServer) -> None:
    before = state_of(shop_site.server, "shop")
    shop_site.restore(to=bench, databases=("shop",), schemas=("shop",))
    after = state_of(bench, "shop")
    for section in before.keys() - {"large objects", "comments", "schemas"}:
        assert compare.differences({"x": {section: before[section]}}, {"x": {section: after[section]}}) == [], section
    assert after["large objects"] == {}


def test_a_schema_with_an_odd_name(site: Site, target: PostgresServer) -> None:
    before = state_of(site.server, dataset.ORDERING)
    site.restore(to=target, databases=(dataset.ORDERING,), schemas=(ARCHIVE,))
    expected = {name for name in ODD if "Archive" in name}
    assert tables_in(target, dataset.ORDERING) == expected
    assert lost(target, before, dataset.ORDERING, expected) == []


def test_two_schemas_that_need_each_other(site: Site, target: PostgresServer) -> None:
    before = state_of(site.server, dataset.ORDERING)
    site.restore(to=target, databases=(dataset.ORDERING,), schemas=("sales", "stock"))
    expected = {n for n in tables_in(site.server, dataset.ORDERING) if re.match(r"(sales|stock)\.", n)}
    assert tables_in(target, dataset.ORDERING) == expected
    assert lost(target, before, dataset.ORDERING, expected) == []


# --- refusals and other ways ------------------------------------------------------------------------------------------


def test_names_that_are_not_in_the_set(shop_site: Site, bench: PostgresServer) -> None:
    with pytest.raises(MissingError, match=r"has no table shop\.Sales, no table shop\.nothing") as caught:
        shop_site.restore(to=bench, databases=("shop",), tables=("shop.Sales", "shop.nothing"))
    assert "case-sensitive" in caught.value.hint
    with pytest.raises(MissingError, match="has no schema SHOP"):
        shop_site.restore(to=bench, databases=("shop",), schemas=("SHOP",))
    with pytest.raises(UsageError, match="not for both"):
        shop_site.restore(to=bench, databases=("shop",), schemas=("shop",), tables=("shop.sales",))
    with pytest.raises(UsageError, match="from one database"):
        shop_site.restore(to=bench, tables=("shop.sales",))
    with pytest.raises(UsageError, match="names no table"):
        shop_site.restore(to=bench, databases=("shop",), tables=("sales",))
    assert databases_of(bench) == {"postgres"}


@pytest.mark.parametrize("form", ["directory", "custom"])
def test_a_table_from_other_archives_and_from_s3(
    shop: PostgresServer, bench: PostgresServer, store: MotoS3, tmp_path: Path, form: str
) -> None:
    site = Site(tmp_path / "s3", shop)
    site.use_s3(store)
    site.backup(databases=["shop"], format=form, compression="gzip")
    site.push()
    before = state_of(shop, "shop")
    for place in ("local", "s3"):
        site.restore(to=bench, place=place, databases=("shop",), tables=("shop.goods",), rename={"shop": place})
        assert tables_in(bench, place) == {"shop.goods"}
        assert lost(bench, before, place, {"shop.goods"}) == []


def test_plain_sql_has_no_parts(shop: PostgresServer, bench: PostgresServer, tmp_path: Path) -> None:
    site = Site(tmp_path / "plain", shop)
    site.backup(databases=["shop"], format="plain")
    with pytest.raises(RefusedError, match="plain SQL"):
        site.restore(to=bench, databases=("shop",), tables=("shop.sales",))
    assert databases_of(bench) == {"postgres"}


def test_a_set_without_fingerprint_has_no_parts(shop: PostgresServer, bench: PostgresServer, tmp_path: Path) -> None:
    site = Site(tmp_path / "bare", shop)
    site.backup(databases=["shop"], fingerprint=False)
    with pytest.raises(RefusedError, match="no fingerprint"):
        site.restore(to=bench, databases=("shop",), tables=("shop.sales",))
    assert databases_of(bench) == {"postgres"}


def test_a_table_into_an_empty_database(shop_site: Site, bench: PostgresServer) -> None:
    run_sql(bench, "postgres", "CREATE DATABASE here")
    shop_site.restore(to=bench, databases=("shop",), tables=("shop.sales",), mode="into_empty", rename={"shop": "here"})
    assert tables_in(bench, "here") == {"shop.sales"}


def test_rights_of_a_schema_come_with_a_table(shop_site: Site, bench: PostgresServer) -> None:
    shop_site.restore(to=bench, databases=("shop",), tables=("shop.sales",))
    assert run_sql(bench, "shop", "SELECT has_schema_privilege('clerk', 'shop', 'USAGE')") == [(True,)]


def test_a_part_needs_neither_the_space_nor_the_extensions_of_the_whole(
    shop_site: Site, bench: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "free_bytes", lambda path: 1000)
    shop_site.restore(to=bench, databases=("shop",), tables=("shop.sales",))
    assert "For the whole database: " in shop_site.warnings and "Make room" in shop_site.warnings
