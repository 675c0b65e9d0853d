// Package volume keeps directories that outlive the containers that use them.
//
// Above it stand engine and cri; below it the file system. A volume is a
// directory: its content in NAME/_data, what is known of it in NAME/volume.json,
// and a mark while it is filled, so that what a killed daemon leaves is whole, is no
// volume, or is known to be filled again. Who uses a volume is the owner's to know.
package volume
