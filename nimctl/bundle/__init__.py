"""One folder of plain files that carries everything a host without a network needs to start a model.

`model` says what `bundle.json` holds. `items` are what is packed, `planning` knows what is there already, `packing`
brings the rest and goes on after any cut, `sealing` finishes it. `shelf` reads a bundle (parts and several media
included), `checking` proves it, `image` knows the layout of an image in it, `weights` how weights come out of it. The
room knows files and digests; what they mean is put together by `cli`.
"""
