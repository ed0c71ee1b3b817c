"""SQLAlchemy: ORM sessions and reflection, with psycopg and with asyncpg. Prints what it sees."""

import asyncio
import os
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine


class Base(orm.DeclarativeBase):
    """What the tables below have together."""

    metadata = sa.MetaData(schema=f"{os.environ.get('SCHEMA', 'alchemy')}")


class Author(Base):
    """One side of a relation."""

    __tablename__ = "author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(80), unique=True)
    born: orm.Mapped[datetime] = orm.mapped_column(sa.DateTime(timezone=True))
    data: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON, default=dict)
    books: orm.Mapped[list["Book"]] = orm.relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Book.id"
    )


class Book(Base):
    """The other."""

    __tablename__ = "book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Author.id))
    title: orm.Mapped[str]
    price: orm.Mapped[Decimal] = orm.mapped_column(sa.Numeric(10, 2))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


def say(*values: object) -> None:
    """Print at once."""
    print(*values, flush=True)


def url(driver: str) -> sa.URL:
    """Return the address that libpq would use; libpq itself needs none."""
    if driver == "psycopg":
        return sa.URL.create("postgresql+psycopg")
    return sa.URL.create(
        "postgresql+asyncpg", os.environ["PGUSER"], os.environ.get("PGPASSWORD"),
        os.environ.get("PGHOSTADDR", os.environ["PGHOST"]), int(os.environ["PGPORT"]),
        os.environ["PGDATABASE"], {"ssl": "require"} if "PGHOSTADDR" in os.environ else {},
    )  # fmt: skip


def authors() -> list[Author]:
    """Return what is stored."""
    return [
        Author(
            name=f"Aüthor {n}", born=datetime(1950 + n, 1, 1, tzinfo=UTC), data={"n": [n, None]},
            books=[Book(title=f"Book {n}.{m}", price=Decimal(n * m) / 3) for m in range(3)],
        )
        for n in range(20)
    ]  # fmt: skip


def reflect(connection: sa.Connection) -> None:
    """Say all that inspection finds."""
    found = sa.inspect(connection)
    for schema in ("public", "alchemy"):
        say(sorted(found.get_table_names(schema)), found.get_view_names(schema))
        for table in sorted(found.get_table_names(schema)):
            say(table, [(c["name"], str(c["type"]), c["nullable"], c["default"])
                        for c in found.get_columns(table, schema)])  # fmt: skip
            say(found.get_pk_constraint(table, schema), found.get_indexes(table, schema))
            say(found.get_foreign_keys(table, schema), found.get_check_constraints(table, schema))
            say(found.get_unique_constraints(table, schema), found.get_table_comment(table, schema))
    metadata = sa.MetaData()
    metadata.reflect(connection, schema="public", views=True)
    say(sorted(metadata.tables))


def use(session: orm.Session) -> None:
    """Write, read, change, fail, go on."""
    session.add_all(authors())
    session.commit()
    found = session.scalars(
        sa.select(Author).options(orm.selectinload(Author.books)).order_by(Author.id)
    ).all()
    say([(a.id, a.name, a.born.isoformat(), a.data, [str(b.price) for b in a.books])
         for a in found][:3])  # fmt: skip
    found[3].name = "Changed"
    session.delete(found[4])
    session.commit()
    totals = sa.select(Author.name, sa.func.sum(Book.price)).join(Book).group_by(Author.name)
    say(session.execute(totals.order_by(Author.name).limit(4)).all())
    session.add(Author(name="Changed", born=datetime.now(UTC)))
    try:
        session.commit()
    except sa.exc.IntegrityError as error:
        say(type(error.orig).__name__, getattr(error.orig, "sqlstate", ""))
        session.rollback()
    try:
        with session.begin_nested():
            session.execute(sa.text("SELECT 1/0"))
    except sa.exc.DBAPIError as error:
        say(type(error).__name__)
    say(session.scalar(sa.select(sa.func.count()).select_from(Book)))
    session.execute(sa.insert(Author).returning(Author.id), [
        {"name": f"many {n}", "born": datetime(2000, 1, 1, tzinfo=UTC)} for n in range(1500)
    ])  # fmt: skip
    session.execute(sa.update(Author).where(Author.name.like("many 1%")).values(data={"x": 1}))
    say(session.scalar(sa.select(sa.func.count()).where(Author.name.like("many%"))))
    session.rollback()
    streamed = session.execute(sa.select(Book).order_by(Book.id), execution_options={
        "stream_results": True, "yield_per": 7})  # fmt: skip
    say(sum(len(part) for part in streamed.partitions()))


def prepare(connection: sa.Connection) -> None:
    """Make the tables anew."""
    connection.execute(sa.text("DROP SCHEMA IF EXISTS alchemy CASCADE"))
    connection.execute(sa.text("CREATE SCHEMA alchemy"))
    Base.metadata.create_all(connection)


def synchronous() -> None:
    """By psycopg."""
    engine = sa.create_engine(url("psycopg"), pool_pre_ping=True)
    with engine.begin() as connection:
        prepare(connection)
    with orm.Session(engine) as session:
        use(session)
    with engine.connect() as connection:
        reflect(connection)
    engine.dispose()


async def asynchronous() -> None:
    """By asyncpg."""
    engine = create_async_engine(url("asyncpg"), pool_pre_ping=True)
    async with engine.begin() as connection:
        await connection.run_sync(prepare)
    async with AsyncSession(engine) as session:
        await session.run_sync(use)
    async with engine.connect() as connection:
        await connection.run_sync(reflect)
    await engine.dispose()


if __name__ == "__main__":
    say("--- psycopg", sys.version_info[:2])
    synchronous()
    say("--- asyncpg")
    asyncio.run(asynchronous())
